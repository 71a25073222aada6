"""A function mode that applies a rule to every torch function which a forward calls on layer outputs."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from types import FrameType, FunctionType
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree

from fgadahat_hooks.errors import CapabilityError
from fgadahat_hooks.importance.attribution.rules_functions import FunctionCall, FunctionKind


class RuleMode(TorchFunctionMode):
    """Passes each call that depends on a layer to a rule, and collects the calls that have none.

    A function composed of others (`multi_head_attention_forward`) can be decomposed with `run_decomposed`. Operations
    that torch does not show to a mode, a custom `autograd.Function` or a scripted one, are found by their nodes in the
    autograd graph.

    Args:
        model: The model that runs.
        rule: Takes a call and this mode, returns the call's result.
    """

    def __init__(self, model: nn.Module, rule: Callable[[FunctionCall, RuleMode], Any]) -> None:
        """Start with no problems."""
        super().__init__()
        self.problems: dict[str, dict[str, None]] = {}
        self._rule = rule
        self._names: dict[int, str] = {id(module): name for name, module in model.named_modules()}
        self._seen_nodes: set[Any] = set()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run the function by its rule."""
        if not torch.is_grad_enabled():
            return func(*args, **(kwargs or {}))
        call = FunctionCall(func, args, kwargs or {})
        if not call.inputs:
            return func(*args, **(kwargs or {}))
        self._check_origin(call)
        result = self._apply(call)
        self._remember_nodes(call, result)
        return result

    def _remember_nodes(self, call: FunctionCall, result: Any) -> None:
        """Remember the autograd nodes of a call's result, and of its arguments, which it may have changed in place."""
        for tensor in pytree.tree_leaves((result, call.args)):
            if isinstance(tensor, Tensor) and tensor.grad_fn is not None:
                self._seen_nodes.add(tensor.grad_fn)
                if call.in_place and tensor._base is not None:
                    self._seen_nodes.add(tensor._base.grad_fn)  # changing a view changes its base

    def _apply(self, call: FunctionCall) -> Any:
        if call.kind not in (FunctionKind.UNKNOWN, FunctionKind.DECISION):
            return self._rule(call, self)
        result = call.run()
        tracked = any(isinstance(t, Tensor) and t.requires_grad for t in pytree.tree_leaves(result))
        if tracked or (call.kind is FunctionKind.DECISION and self._running_module() is not None):
            self.refuse(call)
        return result

    def run_decomposed(self, call: FunctionCall) -> Any:
        """Run a function written in Python so that this mode gets the functions it calls, not the function itself."""
        decomposed = FunctionType(
            call.func.__code__,
            {**call.func.__globals__, "has_torch_function": lambda _: False},
            call.func.__name__,
            call.func.__defaults__,
        )
        decomposed.__kwdefaults__ = call.func.__kwdefaults__
        with self:
            return decomposed(*call.args, **call.kwargs)

    # ---------------------------------------------------------------- problems
    def refuse(self, call: FunctionCall) -> None:
        """Note that a call has no rule."""
        self._note(f"the function `{call.name}`")

    def _check_origin(self, call: FunctionCall) -> None:
        for tensor in call.inputs:
            node = tensor.grad_fn
            if node is not None and node not in self._seen_nodes and not tensor._is_view():
                self._note(f"an operation that torch does not show, {node.name()}, read by `{call.name}`")

    def _note(self, what: str) -> None:
        where = self._running_module()
        place = "in the target" if where is None else f"in module '{where}'" if where else "in the model's own forward"
        self.problems.setdefault(what, {})[place] = None

    def _running_module(self) -> str | None:
        """Return the name of the innermost module that runs, `""` for the model itself, None outside of it.

        Looked up in the interpreter's stack when it is needed, so that it costs nothing otherwise.
        """
        frame: FrameType | None = sys._getframe(1)
        while frame is not None:
            owner = frame.f_locals.get("self")
            if isinstance(owner, nn.Module) and id(owner) in self._names:
                return self._names[id(owner)]
            frame = frame.f_back
        return None


@contextmanager
def apply_rules(model: nn.Module, rule: Callable[[FunctionCall, RuleMode], Any], advice: str) -> Iterator[None]:
    """Apply a rule to each function in the block; parameters are frozen, so only what depends on a layer requires grad.

    Args:
        model: The model that will run.
        rule: Takes a call and the mode, returns the call's result.
        advice: The message of the refusal, with `{}` for what has no rule.

    Raises:
        CapabilityError: The forward called functions without a rule; names all of them and the modules.
    """
    mode = RuleMode(model, rule)
    with _frozen(model), _eager(), mode:
        yield
    if mode.problems:
        raise CapabilityError(advice.format("; ".join(_describe(*problem) for problem in mode.problems.items())))


def _describe(what: str, places: Mapping[str, None]) -> str:
    first, *others = places
    return f"{what} {first}" + (f" and {len(others)} more" if others else "")


@contextmanager
def _frozen(model: nn.Module) -> Iterator[None]:
    trained = [p for p in model.parameters() if p.requires_grad and p.is_leaf]
    try:
        for p in trained:
            p.requires_grad_(False)
        yield
    finally:
        for p in trained:
            p.requires_grad_(True)


@contextmanager
def _eager() -> Iterator[None]:
    """Run compiled parts of the model eagerly: compiled code shows no functions to a mode."""
    set_stance = getattr(torch.compiler, "set_stance", None)  # since torch 2.6
    with ExitStack() as stack:
        if set_stance is not None and "torch._dynamo" in sys.modules:
            stack.enter_context(set_stance("force_eager"))
        yield
