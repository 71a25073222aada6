"""One forward that propagates channel axes and finds which channels can only be removed together."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from fgadahat_hooks.export import arithmetic_rules, movement_rules, parameter_rules
from fgadahat_hooks.export.channel_axes import ChannelAxes, ChannelAxis
from fgadahat_hooks.export.channel_table import ChannelTable, PrunableTensor
from fgadahat_hooks.export.propagation_step import RULES, NotPropagatedError, PropagationStep, Rule
from fgadahat_hooks.graph.tracing.forward import (
    ExampleInputs,
    copy_inputs,
    isolated_evaluation,
    output_tensors,
    run_example,
)
from fgadahat_hooks.graph.tracing.operation import Operation, is_foreign, plain_tensors

RULE_MODULES = (arithmetic_rules, movement_rules, parameter_rules)
"""Importing them fills the table of rules."""
_USES_WEIGHT = frozenset(("convolution", "mm", "addmm", "embedding"))
"""Operations whose rules accept a layer's weight as an argument."""


def propagate(model: nn.Module, inputs: ExampleInputs) -> ChannelTable:
    """Run a plain model once; return its channels, with those joined or kept that the forward requires."""
    table = ChannelTable(model)
    axes = ChannelAxes(table.groups)
    for tensor, axis, channels in table.vectors():
        axes.record(tensor, ChannelAxis(axis, channels))
    with isolated_evaluation(model), _PropagationMode(table, axes):
        out = run_example(model, copy_inputs(inputs))
    for tensor in output_tensors(out):
        found = axes.get(tensor)
        if found is not None:
            table.groups.keep(found.channels, "an output of the model")
    table.keep_shared_memory()
    for entry in table.layers():
        if not entry.used:
            table.keep_entry(entry, "not used in evaluation")
    return table


class _PropagationMode(TorchDispatchMode):
    """Runs every operation, then applies its rule."""

    supports_higher_order_operators = True

    def __init__(self, table: ChannelTable, axes: ChannelAxes) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._table = table
        self._axes = axes

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if is_foreign(func):
            self._keep_all((args, kwargs), f"read by {func}")
            return func(*args, **kwargs)
        if torch.is_inference_mode_enabled():
            with self:  # inference mode skips the decomposition of composite operations
                parts = func.decompose(*args, **kwargs)
            if parts is not NotImplemented:
                return parts
        out = func(*args, **kwargs)
        self._propagate(Operation(func, args, kwargs, out))
        return out

    def _propagate(self, op: Operation) -> None:
        weights = [entry for t in op.inputs if (entry := self._table.weight(t)) is not None]
        if not self._reads_channels(op, weights):
            return
        rule = _rule_of(op, weights)
        failure = op.name if rule is None else self._apply(rule, op)
        if failure is not None:
            self._keep_all((op.args, op.kwargs), f"read by {failure}")

    def _reads_channels(self, op: Operation, weights: list[PrunableTensor]) -> bool:
        """Return whether an operation reads channels; a view of a weight is still that weight, and reads none."""
        if weights:
            return not op.is_view
        return any(self._axes.get(t) is not None for t in op.inputs)

    def _apply(self, rule: Rule, op: Operation) -> str | None:
        """Apply a rule; return None, or what the operation is called if the rule cannot propagate it."""
        try:
            rule(PropagationStep(op, self._table, self._axes))
        except NotPropagatedError as error:
            return str(error)
        except (RuntimeError, IndexError, KeyError, TypeError, ValueError):
            return op.name  # a form of the operation that its rule does not know
        return None

    def _keep_all(self, arguments: Any, reason: str) -> None:
        """Keep all channels of the tensors in nested arguments."""
        for t in plain_tensors(arguments):
            found = self._axes.get(t)
            if found is not None:
                self._table.groups.keep(found.channels, reason)
            entry = self._table.weight(t)
            if entry is not None:
                self._table.keep_entry(entry, reason)


def _rule_of(op: Operation, weights: list[PrunableTensor]) -> Rule | None:
    """Return the rule of an operation; None if it has none, or uses weights or writes to memory as no rule expects."""
    if op.mutable and not op.is_in_place:
        return None
    if weights and (op.name not in _USES_WEIGHT or len(weights) > 1):
        return None
    return RULES.get(op.name) or (arithmetic_rules.elementwise if torch.Tag.pointwise in op.func.tags else None)
