"""An optimizer's groups, split for the length of a step; what the step writes into the parts goes back to them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch.optim import Optimizer

Group = dict[str, Any]
Parts = dict[float, list[Any]]
"""Parameters of a group by the factor of their learning rate."""


class SplitGroups:
    """The groups that a user made, and the parts that a step sees in their place.

    Attributes:
        sets_rates: Whether the step set a learning rate of its own, the same for parts with different factors.
    """

    def __init__(self, optimizer: Optimizer, parts: Iterable[Parts]) -> None:
        """Split the groups.

        Args:
            optimizer: The optimizer.
            parts: For each of its groups, the parameters by their factor.
        """
        self.sets_rates = False
        self._own: list[Group] = optimizer.param_groups
        self._parts = [
            (group, [{**group, "params": params, "lr": group["lr"] * factor} for factor, params in found.items()])
            for group, found in zip(self._own, parts, strict=True)
        ]
        self._rates = [[part["lr"] for part in split] for _, split in self._parts]
        optimizer.param_groups = [part for _, split in self._parts for part in split]

    def restore(self, optimizer: Optimizer) -> None:
        """Restore the user's groups, with what was changed in their parts, and groups that were added."""
        known = {id(part) for _, split in self._parts for part in split}
        added = [group for group in optimizer.param_groups if id(group) not in known]
        for (group, split), rates in zip(self._parts, self._rates, strict=True):
            if split:
                _write_back(group, split)
                self._write_back_rate(group, split, rates)
        self._own.extend(added)
        optimizer.param_groups = self._own

    def _write_back_rate(self, group: Group, split: list[Group], rates: list[Any]) -> None:
        """Restore a learning rate that the step set or multiplied."""
        now = [part["lr"] for part in split]
        changed = [i for i, (rate, value) in enumerate(zip(rates, now, strict=True)) if value is not rate]
        if not changed:
            return
        if len(split) > 1 and all(value is now[0] or float(value) == float(now[0]) for value in now):
            self.sets_rates = True
            group["lr"] = now[0]
        elif float(rates[changed[0]]) != 0:
            group["lr"] = group["lr"] * (now[changed[0]] / rates[changed[0]])


def _write_back(group: Group, split: list[Group]) -> None:
    """Set in a group what differs in its parts, but for parameters and learning rate."""
    for key in [key for key in group if key not in split[0]]:
        del group[key]
    for part in split:
        for key, value in part.items():
            if key not in ("params", "lr") and (key not in group or value is not group[key]):
                group[key] = value
