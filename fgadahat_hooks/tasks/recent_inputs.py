"""The inputs of the last training forwards of a task, for a pass over them at its end."""

from __future__ import annotations

import weakref
from collections import deque
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from fgadahat_hooks.gates.attached_model import AttachedModel
from fgadahat_hooks.gates.gate import GateMode
from fgadahat_hooks.graph.tracing.forward import ModelCall
from fgadahat_hooks.hooks import HookSet

MAX_CALLS = 64
MAX_BYTES = 64 * 2**20


class RecentInputs:
    """Keeps copies of what the model was called with, as many of the last calls as the limits allow, one at least.

    Attributes:
        calls: The calls, the latest last.
    """

    def __init__(self) -> None:
        """Start with none."""
        self.calls: deque[ModelCall] = deque(maxlen=MAX_CALLS)

    def dump(self) -> list[dict[str, Any]]:
        """Return the calls as lists and dicts."""
        return [{"args": list(call.args), "kwargs": dict(call.kwargs)} for call in self.calls]

    def load(self, calls: list[dict[str, Any]] | None) -> None:
        """Continue with the calls of an interrupted task."""
        self.calls.extend(ModelCall(tuple(call["args"]), dict(call["kwargs"])) for call in calls or ())

    def watch(self, attached: AttachedModel, hooks: HookSet) -> None:
        """Keep the inputs of each training forward of the running task, until the hooks are closed."""
        hooks.forward_pre(attached.model, _Keep(self, attached), kwargs=True)

    def keep(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Copy the inputs of a call, and drop the oldest ones beyond the limits."""
        self.calls.append(ModelCall(*pytree.tree_map_only(Tensor, lambda t: t.detach().clone(), (args, kwargs))))
        sizes = [_bytes(call) for call in self.calls]
        while len(self.calls) > 1 and sum(sizes) > MAX_BYTES:
            self.calls.popleft()
            sizes.pop(0)


def _bytes(call: ModelCall) -> int:
    leaves = pytree.tree_leaves((call.args, call.kwargs))
    return sum(t.numel() * t.element_size() for t in leaves if isinstance(t, Tensor))


class _Keep:
    """Forward pre-hook of the model; in a copy of the model it does nothing."""

    def __init__(self, inputs: RecentInputs, attached: AttachedModel) -> None:
        self._inputs = weakref.ref(inputs)
        self._context = attached.gate_context

    def __call__(self, model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        inputs = self._inputs()
        if inputs is None or torch.compiler.is_compiling() or not (model.training and torch.is_grad_enabled()):
            return
        if self._context.mode is GateMode.TASK:
            inputs.keep(args, kwargs)

    def __deepcopy__(self, memo: Any) -> Any:
        return _ignore

    def __reduce__(self) -> Any:
        return (_no_inputs, ())


def _no_inputs() -> Any:
    return _ignore


def _ignore(*_: Any) -> None:
    return None
