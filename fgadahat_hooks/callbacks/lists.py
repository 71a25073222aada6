"""Lists of callbacks: those that a spec asks for, and the checks before they are used."""

from __future__ import annotations

from collections.abc import Iterable

from torch import nn

from fgadahat_hooks.callbacks import (
    Callback,
    CallbackList,
    GradientAdjustCallback,
    ImportanceCallback,
    SummationCallback,
)
from fgadahat_hooks.errors import BadCallError
from fgadahat_hooks.graph.trace import ExampleInputs
from fgadahat_hooks.graph.unit_graph import UnitGraph
from fgadahat_hooks.spec.attach_spec import AttachSpec


def default_callbacks(spec: AttachSpec) -> list[Callback]:
    """Return the callbacks a spec asks for: importance and summation only where a mode uses them."""
    adjust = GradientAdjustCallback(spec.adjustment)
    if spec.adjustment.mode != "fg_adahat":
        return [adjust]
    importance = ImportanceCallback(spec.importance, spec.adjustment.base_importance)
    return [importance, SummationCallback(spec.summation), adjust]


def check_capabilities(
    callbacks: CallbackList, model: nn.Module, graph: UnitGraph, example_inputs: ExampleInputs
) -> None:
    """Refuse, before anything is changed, a measure that cannot be computed on this model.

    Raises:
        CapabilityError: Names the layers and what to use instead.
    """
    for callback in callbacks.items:
        if isinstance(callback, ImportanceCallback):
            callback.check(model, graph, example_inputs)


def callback_list(spec: AttachSpec, callbacks: Iterable[Callback] | None) -> CallbackList:
    """Return the given callbacks, or those that the spec asks for if none are given.

    Raises:
        BadCallError: An item is no callback; names it.
        DuplicateNameError: Two callbacks have the same key.
    """
    return CallbackList(default_callbacks(spec) if callbacks is None else validated(callbacks))


def validated(callbacks: Iterable[Callback]) -> list[Callback]:
    """Return the callbacks as a list.

    Raises:
        BadCallError: An item is no callback; names it.
    """
    items = list(callbacks)
    wrong = [describe(c) for c in items if not isinstance(c, Callback)]
    if wrong:
        raise BadCallError(
            f"Expected every callback to be an instance of fgadahat_hooks.Callback, but got {', '.join(wrong)}. "
            "Pass instances, not classes."
        )
    return items


def describe(value: object) -> str:
    """Return a class's own name, or the name of the class of anything else, for an error message."""
    return f"the class {value.__name__}" if isinstance(value, type) else type(value).__name__
