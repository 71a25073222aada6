"""Norms whose running statistics stay as the first task left them."""

from __future__ import annotations

import weakref
from typing import Any

from torch import nn

from fgadahat_hooks.protection.guard import GuardedTasks


class FrozenNorm:
    """Runs a norm in evaluation mode once a task is finished, so that its running statistics stay as they are."""

    def __init__(self, tasks: GuardedTasks | None) -> None:
        """Hold the model's tasks weakly; without them, as in a pickled copy, leave the norm's mode alone."""
        self._tasks = None if tasks is None else weakref.ref(tasks)
        self._modes: list[bool] = []  # of the forwards that are running, the innermost last

    def enter(self, module: nn.Module, _: Any) -> None:
        """Forward pre-hook."""
        tasks = None if self._tasks is None else self._tasks()
        self._modes.append(module.training)
        if tasks is not None and tasks.state.records:
            module.training = False

    def leave(self, module: nn.Module, _: Any, __: Any) -> None:
        """Forward hook, called also after an exception."""
        if self._modes:
            module.training = self._modes.pop()

    def __deepcopy__(self, memo: Any) -> FrozenNorm:
        """Refer to the same tasks: a copy's norms are frozen when the original's are."""
        return self

    def __reduce__(self) -> Any:
        """Pickle without the tasks."""
        return (FrozenNorm, (None,))


def freeze_norms(tasks: GuardedTasks) -> None:
    """Freeze every norm of a model from the end of the first task on."""
    attached = tasks.attached
    for owner in {p.owner for p in attached.policies if p.role == "norm"}:
        module = attached.model.get_submodule(owner)
        frozen = FrozenNorm(tasks)
        attached.hooks.forward_pre(module, frozen.enter)
        attached.hooks.forward(module, frozen.leave, always=True)
