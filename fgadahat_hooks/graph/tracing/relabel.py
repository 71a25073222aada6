"""From an executed operation to the labels of what it put out."""

from __future__ import annotations

from torch import Tensor

from fgadahat_hooks.graph.tracing import moves, rules
from fgadahat_hooks.graph.tracing.call import RULES, Call, is_zero
from fgadahat_hooks.graph.tracing.labels import LIVE, ZERO
from fgadahat_hooks.graph.tracing.operation import Operation

RULE_MODULES = (moves, rules)
"""Importing them fills the table of rules."""
FACTORIES = frozenset(("zeros", "zeros_like", "new_zeros"))


def output_labels(call: Call) -> Tensor | int:
    """Return the labels of the first output of an operation; LIVE if it has no rule or the rule does not fit."""
    op = call.op
    fill = _fill_label(op)
    if fill is not None:
        return fill
    if op.name not in RULES or (op.mutable and not op.is_in_place):
        return LIVE
    if not any(call.store.has(t) for t in op.inputs):
        return LIVE
    try:
        return RULES[op.name](call).expand(call.shape)
    except (RuntimeError, IndexError, KeyError, TypeError, ValueError, NotImplementedError):
        return LIVE


def _fill_label(op: Operation) -> int | None:
    """Return the label an operation fills its output with, whatever the inputs; None if it does no such thing."""
    if op.name == "zero" or op.name in FACTORIES:
        return ZERO
    if op.name == "fill":
        return ZERO if is_zero(op.args[1]) else LIVE
    return None
