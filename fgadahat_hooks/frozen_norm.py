"""Norms that stay as the first task left them."""

from __future__ import annotations

import weakref
from typing import Any

from torch import nn

from fgadahat_hooks.runtime import Runtime


class FrozenNorm:
    """Runs a norm in evaluation mode once a task is finished, so that its running statistics rest."""

    def __init__(self, runtime: Runtime | None) -> None:
        """Hold the runtime weakly; without one, as in a pickled copy, let norms do as they like."""
        self._runtime = None if runtime is None else weakref.ref(runtime)
        self._training: list[bool] = []

    def enter(self, module: nn.Module, _: Any) -> None:
        """Forward pre-hook."""
        runtime = None if self._runtime is None else self._runtime()
        self._training.append(module.training)
        if runtime is not None and runtime.state.records:
            module.training = False

    def leave(self, module: nn.Module, _: Any, __: Any) -> None:
        """Forward hook, called also after an exception."""
        if self._training:
            module.training = self._training.pop()

    def __deepcopy__(self, memo: Any) -> FrozenNorm:
        """Watch the same runtime: a copy's norms rest when the original's do."""
        return self

    def __reduce__(self) -> Any:
        """Pickle without the runtime."""
        return (FrozenNorm, (None,))


def freeze_norms(runtime: Runtime) -> None:
    """Let every norm of a model rest from the end of the first task on."""
    for owner in {p.owner for p in runtime.policies if p.role == "norm"}:
        module = runtime.model.get_submodule(owner)
        frozen = FrozenNorm(runtime)
        runtime.hooks.forward_pre(module, frozen.enter)
        runtime.hooks.forward(module, frozen.leave, always=True)
