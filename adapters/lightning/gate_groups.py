"""Own parameter groups for task embeddings, hidden from learning-rate schedulers.

A LightningModule typically returns `AdamW(self.parameters(), lr=...)` with schedulers built on it, so embeddings share
a group with weights. But they need no weight decay and a larger learning rate. Each mixed group is split: before each
step, the new group of embeddings copies the options of its source group, with the learning rate times a factor.
Schedulers see only the groups they were built for, so that their state for each group stays valid.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.optim import LBFGS, Optimizer

import fgadahat_hooks as fh

_NOT_COPIED = frozenset({"params", "param_names", "lr", "initial_lr", "weight_decay"})
_LR_FACTOR = 10


class GateGroups:
    """The parameter groups added to one optimizer."""

    def __init__(self, optimizer: Optimizer, session: fh.Session, gate_lr: float | None) -> None:
        """Move embeddings out of groups that hold other parameters too; groups of embeddings alone stay.

        Args:
            optimizer: The optimizer.
            session: The session whose task embeddings are moved.
            gate_lr: Learning rate of the embeddings at the initial learning rate of their source group; ten times that
                if None.
        """
        self._optimizer = optimizer
        self._count = len(optimizer.param_groups)
        self._gate_groups: list[_GateGroup] = []
        self._schedulers: list[Any] = []
        embeddings = {id(e) for e in session.embeddings.values()}
        for index in range(0 if isinstance(optimizer, LBFGS) else self._count):  # LBFGS accepts only one group
            self._split(index, embeddings, gate_lr)
        self._handle = optimizer.register_step_pre_hook(self._sync_options) if self._gate_groups else None

    def _split(self, source: int, embeddings: set[int], gate_lr: float | None) -> None:
        """Move the embeddings of a mixed group to a new group."""
        group = self._optimizer.param_groups[source]
        is_embedding = [id(p) in embeddings for p in group["params"]]
        if all(is_embedding) or not any(is_embedding):
            return
        new_group = _copied_options(group) | _pop_params(group, is_embedding)
        if "weight_decay" in group:
            new_group["weight_decay"] = 0.0
        initial = group.get("initial_lr", group["lr"])
        gate_group = _GateGroup(len(self._optimizer.param_groups), source, initial, gate_lr)
        self._optimizer.add_param_group({**new_group, "lr": gate_group.lr(group["lr"])})
        self._gate_groups.append(gate_group)

    def _sync_options(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        """Step pre-hook: copy the options of the source groups, which schedulers may have changed."""
        groups = optimizer.param_groups
        for gate_group in self._gate_groups:
            source = groups[gate_group.source]
            groups[gate_group.index].update(_copied_options(source))
            groups[gate_group.index]["lr"] = gate_group.lr(source["lr"])

    def hide_from_schedulers(self, schedulers: Iterable[Any]) -> None:
        """Show schedulers of the optimizer only the groups they were built for."""
        for scheduler in _with_nested(schedulers) if self._gate_groups else ():
            if getattr(scheduler, "optimizer", None) is self._optimizer:
                scheduler.optimizer = _OptimizerView(self._optimizer, self._count)
                self._schedulers.append(scheduler)

    def close(self) -> None:
        """Remove the hook and restore the schedulers' optimizer; the groups stay."""
        if self._handle is not None:
            self._handle.remove()
        for scheduler in self._schedulers:
            scheduler.optimizer = self._optimizer
        self._schedulers.clear()


def _copied_options(group: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in group.items() if key not in _NOT_COPIED}


def _pop_params(group: dict[str, Any], selected: list[bool]) -> dict[str, Any]:
    """Remove the selected parameters, and their names if there are any, from a group; return them."""
    popped: dict[str, Any] = {}
    for key in ("params", "param_names"):
        if key in group:
            popped[key] = [p for p, chosen in zip(group[key], selected, strict=True) if chosen]
            group[key] = [p for p, chosen in zip(group[key], selected, strict=True) if not chosen]
    return popped


def _with_nested(schedulers: Iterable[Any]) -> Iterator[Any]:
    """Yield schedulers and those inside them (`SequentialLR`, `ChainedScheduler`)."""
    for scheduler in schedulers:
        yield scheduler
        yield from _with_nested(getattr(scheduler, "_schedulers", ()))


@dataclass(frozen=True)
class _GateGroup:
    """Indices of a group of embeddings and of its source group, and its learning rate."""

    index: int
    source: int
    initial_lr: float | Tensor
    gate_lr: float | None

    def lr(self, source_lr: float | Tensor) -> float | Tensor:
        if self.gate_lr is None:
            return _LR_FACTOR * source_lr
        unchanged = bool(source_lr == self.initial_lr)
        return self.gate_lr if unchanged else self.gate_lr * (source_lr / self.initial_lr)


class _OptimizerView:
    """A view of an optimizer without the added groups; everything else is delegated."""

    def __init__(self, optimizer: Optimizer, count: int) -> None:
        self._optimizer = optimizer
        self._count = count

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        return self._optimizer.param_groups[: self._count]

    @property  # type: ignore[misc]  # `isinstance` and class names see the optimizer's class
    def __class__(self) -> type:
        return type(self._optimizer)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._optimizer, name)

    def __eq__(self, other: object) -> bool:
        return other is self or other is self._optimizer

    def __hash__(self) -> int:
        return hash(self._optimizer)
