"""From an executed operation to the labels of its output."""

from __future__ import annotations

from torch import Tensor

from fgadahat_hooks.graph.tracing import arithmetic_rules, movement_rules
from fgadahat_hooks.graph.tracing.labels import LIVE, ZERO
from fgadahat_hooks.graph.tracing.operation import Operation
from fgadahat_hooks.graph.tracing.rule_registry import RULES, RuleContext, is_zero

RULE_MODULES = (movement_rules, arithmetic_rules)
"""Importing them fills the registry of rules."""
FACTORIES = frozenset(("zeros", "zeros_like", "new_zeros"))


def output_labels(ctx: RuleContext) -> Tensor | int:
    """Return the labels of the first output of an operation; LIVE if it has no rule or the rule does not fit."""
    op = ctx.op
    fill = _fill_label(op)
    if fill is not None:
        return fill
    if op.name not in RULES or (op.mutable and not op.is_in_place):
        return LIVE
    if not any(ctx.store.has(t) for t in op.inputs):
        return LIVE
    try:
        return RULES[op.name](ctx).expand(ctx.shape)
    except (RuntimeError, IndexError, KeyError, TypeError, ValueError, NotImplementedError):
        return LIVE


def _fill_label(op: Operation) -> int | None:
    """Return the one label of an output that does not depend on the inputs; None for an operation of another kind."""
    if op.name == "zero" or op.name in FACTORIES:
        return ZERO
    if op.name == "fill":
        return ZERO if is_zero(op.args[1]) else LIVE
    return None
