"""Refuse optimizer steps: inside a task those of unprotected optimizers, outside all once a task is finished."""

from __future__ import annotations

import weakref
from typing import Any, ClassVar, Protocol

from torch.optim import Optimizer
from torch.optim.optimizer import register_optimizer_step_pre_hook

from fgadahat_hooks.callbacks.base import optimizer_parameters
from fgadahat_hooks.errors import UnprotectedOptimizerError
from fgadahat_hooks.gates.attached_model import AttachedModel
from fgadahat_hooks.gates.task_state import TaskId, TaskState


class ProtectingTask(Protocol):
    """A running task, as the guard sees it."""

    @property
    def id(self) -> TaskId:
        """The task's id."""
        ...

    def protects(self, optimizer: Optimizer) -> bool:
        """Return whether an optimizer was protected in this task."""
        ...


class GuardedTasks(Protocol):
    """The tasks of one attached model, as the guard sees them."""

    @property
    def attached(self) -> AttachedModel:
        """The model."""
        ...

    @property
    def state(self) -> TaskState:
        """Finished tasks."""
        ...

    @property
    def running(self) -> ProtectingTask | None:
        """The running task."""
        ...


class OptimizerGuard:
    """Refuses steps that would change what finished tasks use.

    The hook is torch's global one, called before any optimizer's step. It holds the tasks weakly: once their session
    is gone it does nothing, and the next guard removes it. (A finalizer must not: garbage collection may run while
    torch iterates over its hooks.)
    """

    _living: ClassVar[list[OptimizerGuard]] = []

    def __init__(self, tasks: GuardedTasks) -> None:
        """Install the hook until the model's hooks are closed."""
        self._tasks = weakref.ref(tasks)
        self._remove_orphans()
        self._handle = register_optimizer_step_pre_hook(self._before_step)
        self._living.append(self)
        tasks.attached.hooks.undo(self._remove)

    @classmethod
    def _remove_orphans(cls) -> None:
        for guard in [g for g in cls._living if g._tasks() is None]:
            guard._remove()

    def _remove(self) -> None:
        self._handle.remove()
        self._living.remove(self)

    def _before_step(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        tasks = self._tasks()
        if tasks is None or (tasks.running is None and not tasks.state.records):
            return
        if tasks.running is not None and tasks.running.protects(optimizer):
            return
        if not optimizer_parameters(optimizer).isdisjoint(id(p) for p in tasks.attached.model.parameters()):
            raise _unprotected(optimizer, tasks.running)


def _unprotected(optimizer: Optimizer, running: ProtectingTask | None) -> UnprotectedOptimizerError:
    name = type(optimizer).__name__
    if running is not None:
        return UnprotectedOptimizerError(
            f"{name} is about to step parameters of the attached model inside task {running.id!r}, but it "
            "was not protected: finished tasks would be forgotten. Call `task.protect(optimizer)` once after "
            "building it. Nothing was changed."
        )
    return UnprotectedOptimizerError(
        f"{name} is about to step parameters of the attached model outside any task: finished tasks would be "
        "forgotten. Train inside `with session.task(...) as task:` and call `task.protect(optimizer)`. Nothing was "
        "changed."
    )
