"""What a rule can read of an executed operation, and the registry of all rules."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fgadahat_hooks.graph.tracing.constant_tensors import ConstantTensors
from fgadahat_hooks.graph.tracing.label_store import LabelStore
from fgadahat_hooks.graph.tracing.labels import LIVE, ZERO, LabelTable, constant
from fgadahat_hooks.graph.tracing.operation import Operation


@dataclass(frozen=True)
class RuleContext:
    """One executed operation, the labels of its arguments, and the table that combines labels."""

    op: Operation
    table: LabelTable
    store: LabelStore
    constants: ConstantTensors

    def labels(self, x: Any) -> Tensor:
        """Return the labels of a tensor argument; a number is `ZERO` if it is zero, else live."""
        if not isinstance(x, Tensor):
            return constant(ZERO if is_zero(x) else LIVE)
        found = self.store.get(x)
        return constant(LIVE, x.shape) if found is None else found

    def arg(self, index: int) -> Tensor:
        """Return the labels of a positional argument."""
        return self.labels(self.op.args[index])

    @property
    def shape(self) -> torch.Size:
        """Shape of the first output."""
        return torch.Size(()) if self.op.first_out is None else self.op.first_out.shape


Rule = Callable[[RuleContext], Tensor]
RULES: dict[str, Rule] = {}


def rule(names: str) -> Callable[[Rule], Rule]:
    """Register a rule for operations, their names separated by spaces."""

    def add(function: Rule) -> Rule:
        RULES.update(dict.fromkeys(names.split(), function))
        return function

    return add


def is_zero(x: Any) -> bool:
    """Return whether an argument is the number zero."""
    return isinstance(x, int | float | complex) and x == 0
