"""One forward that finds out which parts of a model can only go together."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from fgadahat_hooks.export import moves, rules
from fgadahat_hooks.export.lines import Line, Lines
from fgadahat_hooks.export.slots import SlotTable
from fgadahat_hooks.export.step import RULES, NotFollowedError, Step
from fgadahat_hooks.graph.tracing.forward import ExampleInputs, output_tensors, own_copy, run_example, untouched
from fgadahat_hooks.graph.tracing.operation import Operation, is_foreign, plain_tensors

RULE_MODULES = (moves, rules)
"""Importing them fills the table of rules."""
_USES = frozenset(("convolution", "mm", "addmm", "embedding"))


def follow(model: nn.Module, inputs: ExampleInputs) -> SlotTable:
    """Run a plain model once; return its slots, joined and fixed as the forward asks."""
    table = SlotTable(model)
    lines = Lines(table.slots)
    for tensor, axis, slots in table.vectors():
        lines.put(tensor, Line(axis, slots))
    with untouched(model), _FollowMode(table, lines):
        out = run_example(model, own_copy(inputs))
    for tensor in output_tensors(out):
        line = lines.get(tensor)
        if line is not None:
            table.slots.fix(line.slots, "an output of the model")
    table.fix_odd()
    for entry in table.layers():
        if not entry.used:
            table.fix_entry(entry, "not used in evaluation")
    return table


class _FollowMode(TorchDispatchMode):
    """Runs every operation, then applies its rule."""

    supports_higher_order_operators = True

    def __init__(self, table: SlotTable, lines: Lines) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._table = table
        self._lines = lines

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if is_foreign(func):
            self._stay((args, kwargs), f"read by {func}")
            return func(*args, **kwargs)
        if torch.is_inference_mode_enabled():
            with self:  # inference mode skips the step that takes composite operations apart
                parts = func.decompose(*args, **kwargs)
            if parts is not NotImplemented:
                return parts
        out = func(*args, **kwargs)
        self._visit(Operation(func, args, kwargs, out))
        return out

    def _visit(self, op: Operation) -> None:
        weights = [entry for t in op.inputs if (entry := self._table.weight(t)) is not None]
        if op.is_view and weights:
            return
        if not weights and not any(self._lines.get(t) is not None for t in op.inputs):
            return
        rule = RULES.get(op.name) or (rules.elementwise if torch.Tag.pointwise in op.func.tags else None)
        handled = op.name in _USES and len(weights) == 1
        reason = op.name
        if rule is not None and (handled or not weights) and (op.is_in_place or not op.mutable):
            try:
                rule(Step(op, self._table, self._lines))
                return
            except NotFollowedError as error:
                reason = str(error)
            except (RuntimeError, IndexError, KeyError, TypeError, ValueError):
                pass  # a form of the operation that its rule does not know
        self._stay((op.args, op.kwargs), f"read by {reason}")

    def _stay(self, tree: Any, reason: str) -> None:
        """Let everything stay that an operation reads."""
        for t in plain_tensors(tree):
            line = self._lines.get(t)
            if line is not None:
                self._table.slots.fix(line.slots, reason)
            entry = self._table.weight(t)
            if entry is not None:
                self._table.fix_entry(entry, reason)
