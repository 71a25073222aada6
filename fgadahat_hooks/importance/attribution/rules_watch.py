"""See every function of torch that a forward calls on the values of layers."""

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
from fgadahat_hooks.importance.attribution.rules import Call, Kind


class Watch(TorchFunctionMode):
    """Hands each call that depends on a layer to a rule, and notes what has none.

    A function on functions (`multi_head_attention_forward`) can be taken apart with `inside`. Whether a value came
    from what torch does not show, a custom `autograd.Function` or a scripted one, is seen by its place in the graph.

    Args:
        model: The model that runs.
        rule: Takes a call and this watch, returns what the call is to return.
    """

    def __init__(self, model: nn.Module, rule: Callable[[Call, Watch], Any]) -> None:
        """Start with nothing seen."""
        super().__init__()
        self.problems: dict[str, dict[str, None]] = {}
        self._rule = rule
        self._names: dict[int, str] = {id(module): name for name, module in model.named_modules()}
        self._seen: set[Any] = set()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run the function by its rule."""
        if not torch.is_grad_enabled():
            return func(*args, **(kwargs or {}))
        call = Call(func, args, kwargs or {})
        if not call.inputs:
            return func(*args, **(kwargs or {}))
        self._check_origin(call)
        result = self._apply(call)
        for tensor in pytree.tree_leaves((result, args)):
            if isinstance(tensor, Tensor) and tensor.grad_fn is not None:
                self._seen.add(tensor.grad_fn)
                if call.in_place and tensor._base is not None:
                    self._seen.add(tensor._base.grad_fn)  # a change of a view is one of its base
        return result

    def _apply(self, call: Call) -> Any:
        if call.kind not in (Kind.UNKNOWN, Kind.CHOICE):
            return self._rule(call, self)
        result = call.run()
        tracked = any(isinstance(t, Tensor) and t.requires_grad for t in pytree.tree_leaves(result))
        if tracked or (call.kind is Kind.CHOICE and self._running() is not None):
            self.refuse(call)
        return result

    def inside(self, call: Call) -> Any:
        """Run a function written in Python so that the functions it calls are seen in its place."""
        opened = FunctionType(
            call.func.__code__,
            {**call.func.__globals__, "has_torch_function": lambda _: False},
            call.func.__name__,
            call.func.__defaults__,
        )
        opened.__kwdefaults__ = call.func.__kwdefaults__
        with self:
            return opened(*call.args, **call.kwargs)

    # ---------------------------------------------------------------- what cannot be
    def refuse(self, call: Call, what: str = "") -> None:
        """Note that a call has no rule."""
        self._note(what or f"the function `{call.name}`")

    def _check_origin(self, call: Call) -> None:
        for tensor in call.inputs:
            node = tensor.grad_fn
            if node is not None and node not in self._seen and not tensor._is_view():
                self._note(f"an operation that torch does not show, {node.name()}, read by `{call.name}`")

    def _note(self, what: str) -> None:
        where = self._running()
        place = "in the target" if where is None else f"in module '{where}'" if where else "in the model's own forward"
        self.problems.setdefault(what, {})[place] = None

    def _running(self) -> str | None:
        """Return the name of the innermost module that runs, `""` for the model itself, None outside of it.

        Looked up in the interpreter's stack, so that what goes well costs nothing.
        """
        frame: FrameType | None = sys._getframe(1)
        while frame is not None:
            owner = frame.f_locals.get("self")
            if isinstance(owner, nn.Module) and id(owner) in self._names:
                return self._names[id(owner)]
            frame = frame.f_back
        return None


@contextmanager
def watching(model: nn.Module, rule: Callable[[Call, Watch], Any], advice: str) -> Iterator[None]:
    """Run the block with a rule for each function; within it, what requires grad is what depends on a layer.

    Args:
        model: The model that will run.
        rule: Takes a call and the watch, returns what the call is to return.
        advice: How the refusal begins and ends, with `{}` for what has no rule.

    Raises:
        CapabilityError: The forward called what has no rule; names all of it and the modules.
    """
    watch = Watch(model, rule)
    with _frozen(model), _eager(), watch:
        yield
    if watch.problems:
        raise CapabilityError(advice.format("; ".join(_said(*found) for found in watch.problems.items())))


def _said(what: str, places: Mapping[str, None]) -> str:
    first, *others = places
    return f"{what} {first}" + (f" and {len(others)} more" if others else "")


@contextmanager
def _frozen(model: nn.Module) -> Iterator[None]:
    learning = [p for p in model.parameters() if p.requires_grad and p.is_leaf]
    try:
        for p in learning:
            p.requires_grad_(False)
        yield
    finally:
        for p in learning:
            p.requires_grad_(True)


@contextmanager
def _eager() -> Iterator[None]:
    """Run compiled parts of the model as they were written: a compiler shows nothing of what it runs."""
    set_stance = getattr(torch.compiler, "set_stance", None)  # since torch 2.6
    with ExitStack() as stack:
        if set_stance is not None and "torch._dynamo" in sys.modules:
            stack.enter_context(set_stance("force_eager"))
        yield
