"""Watches optimizers: inside a task only protected ones may step the model, outside none once a task is finished."""

from __future__ import annotations

import weakref
from typing import Any, ClassVar

from torch.optim import Optimizer
from torch.optim.optimizer import register_optimizer_step_pre_hook

from fgadahat_hooks.callbacks.base import optimizer_parameters
from fgadahat_hooks.errors import UnprotectedOptimizerError
from fgadahat_hooks.runtime import Runtime


class OptimizerGuard:
    """Refuses steps that would change what finished tasks use.

    The hook is torch's global one, called before any optimizer's step. It holds the runtime weakly: for a session that
    was thrown away it does nothing, and the next guard takes it out. (Not the garbage collector, which may run while
    torch goes over its hooks.)
    """

    _living: ClassVar[list[OptimizerGuard]] = []

    def __init__(self, runtime: Runtime) -> None:
        """Install the hook until the runtime's hooks are closed."""
        self._runtime = weakref.ref(runtime)
        self._sweep()
        self._handle = register_optimizer_step_pre_hook(self._before_step)
        self._living.append(self)
        runtime.hooks.undo(self._remove)

    @classmethod
    def _sweep(cls) -> None:
        for guard in [g for g in cls._living if g._runtime() is None]:
            guard._remove()

    def _remove(self) -> None:
        self._handle.remove()
        self._living.remove(self)

    def _before_step(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        runtime = self._runtime()
        if runtime is None or (runtime.task is None and not runtime.state.records):
            return
        if runtime.task is not None and runtime.task.protects(optimizer):
            return
        held = optimizer_parameters(optimizer)
        if held.isdisjoint(id(p) for p in runtime.model.parameters()):
            return
        name = type(optimizer).__name__
        if runtime.task is not None:
            raise UnprotectedOptimizerError(
                f"{name} is about to step parameters of the attached model inside task {runtime.task.id!r}, but it was "
                "not protected: finished tasks would be forgotten. Call `task.protect(optimizer)` once after building "
                "it. Nothing was changed."
            )
        raise UnprotectedOptimizerError(
            f"{name} is about to step parameters of the attached model outside any task: finished tasks would be "
            "forgotten. Train inside `with session.task(...) as task:` and call `task.protect(optimizer)`. Nothing was "
            "changed."
        )
