"""Task embeddings in parameter groups of their own, and schedulers that know nothing of it.

A LightningModule says `AdamW(self.parameters(), lr=...)` and builds schedulers on that optimizer, so embeddings are in
the group of the weights. They want no weight decay and a larger learning rate. Their new group follows the one they
came from: before each step it takes that group's options, with the learning rate times a constant. The schedulers see
only the groups they were built for, so that whatever they keep for each group stays true.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.optim import LBFGS, Optimizer

import fgadahat_hooks as fh

_OWN = frozenset({"params", "param_names", "lr", "initial_lr", "weight_decay"})
_FASTER = 10


class GateGroups:
    """The groups that were added to one optimizer."""

    def __init__(self, optimizer: Optimizer, session: fh.Session, gate_lr: float | None) -> None:
        """Take the embeddings out of groups that hold other parameters too.

        Args:
            optimizer: The optimizer.
            session: Says which parameters are embeddings.
            gate_lr: Learning rate of the embeddings at the initial learning rate of their old group; ten times that
                when left out. A group of embeddings alone is left as it is.
        """
        self._optimizer = optimizer
        self._count = len(optimizer.param_groups)
        self._followers: list[_Follower] = []
        self._schedulers: list[Any] = []
        embeddings = {id(e) for e in session.embeddings.values()}
        for leader in range(0 if isinstance(optimizer, LBFGS) else self._count):  # it takes no more than one group
            self._split(leader, embeddings, gate_lr)
        self._handle = optimizer.register_step_pre_hook(self._follow) if self._followers else None

    def _split(self, leader: int, embeddings: set[int], gate_lr: float | None) -> None:
        group = self._optimizer.param_groups[leader]
        ours = [id(p) in embeddings for p in group["params"]]
        if all(ours) or not any(ours):
            return
        follower = {key: value for key, value in group.items() if key not in _OWN}
        for key in ("params", "param_names"):
            if key in group:
                follower[key] = [p for p, our in zip(group[key], ours, strict=True) if our]
                group[key] = [p for p, our in zip(group[key], ours, strict=True) if not our]
        if "weight_decay" in group:
            follower["weight_decay"] = 0.0
        initial = group.get("initial_lr", group["lr"])
        link = _Follower(len(self._optimizer.param_groups), leader, initial, gate_lr)
        self._optimizer.add_param_group({**follower, "lr": link.lr(group["lr"])})
        self._followers.append(link)

    def _follow(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        """Step pre-hook: schedulers may have changed anything since the last step."""
        groups = optimizer.param_groups
        for link in self._followers:
            leader = groups[link.leader]
            groups[link.place].update({key: value for key, value in leader.items() if key not in _OWN})
            groups[link.place]["lr"] = link.lr(leader["lr"])

    def hide_from(self, schedulers: Iterable[Any]) -> None:
        """Let schedulers of the optimizer see the groups they were built for."""
        for scheduler in _all(schedulers) if self._followers else ():
            if getattr(scheduler, "optimizer", None) is self._optimizer:
                scheduler.optimizer = _BuiltFor(self._optimizer, self._count)
                self._schedulers.append(scheduler)

    def close(self) -> None:
        """Take the hook away and give the schedulers their optimizer back; the groups stay."""
        if self._handle is not None:
            self._handle.remove()
        for scheduler in self._schedulers:
            scheduler.optimizer = self._optimizer
        self._schedulers.clear()


def _all(schedulers: Iterable[Any]) -> Iterator[Any]:
    """Give schedulers and those inside them (`SequentialLR`, `ChainedScheduler`)."""
    for scheduler in schedulers:
        yield scheduler
        yield from _all(getattr(scheduler, "_schedulers", ()))


@dataclass(frozen=True)
class _Follower:
    """Places of two groups, and the learning rate of the second."""

    place: int
    leader: int
    initial: float | Tensor
    gate_lr: float | None

    def lr(self, leader: float | Tensor) -> float | Tensor:
        if self.gate_lr is None:
            return _FASTER * leader
        same = bool(leader == self.initial)
        return self.gate_lr if same else self.gate_lr * (leader / self.initial)


class _BuiltFor:
    """An optimizer without the groups that were added to it; all else is the optimizer's own."""

    def __init__(self, optimizer: Optimizer, count: int) -> None:
        self._optimizer = optimizer
        self._count = count

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        return self._optimizer.param_groups[: self._count]

    @property  # type: ignore[misc]  # `isinstance` and names say what the optimizer is
    def __class__(self) -> type:
        return type(self._optimizer)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._optimizer, name)

    def __eq__(self, other: object) -> bool:
        return other is self or other is self._optimizer

    def __hash__(self) -> int:
        return hash(self._optimizer)
