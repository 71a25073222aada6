"""What a rule sees of an operation, and the table of all rules."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from fgadahat_hooks.export.lines import Line, Lines
from fgadahat_hooks.export.slots import Slots, SlotTable
from fgadahat_hooks.graph.tracing.operation import Operation, plain_tensors


class NotFollowedError(Exception):
    """Raised by a rule for what it does not follow: all that the operation reads stays, for the reason given."""


@dataclass(frozen=True)
class Step:
    """One executed operation, and where slots and lines are."""

    op: Operation
    table: SlotTable
    lines: Lines

    @property
    def slots(self) -> Slots:
        """The slots."""
        return self.table.slots

    @property
    def out(self) -> Tensor:
        """The first tensor put out."""
        if self.op.first_out is None:
            raise NotFollowedError("puts out no tensor")
        return self.op.first_out

    @property
    def outs(self) -> list[Tensor]:
        """All tensors put out."""
        return list(plain_tensors(self.op.out))

    def line(self, x: Any) -> Line | None:
        """Return the line of an argument; None if it is not followed."""
        return self.lines.get(x) if isinstance(x, Tensor) else None

    def only(self) -> Line:
        """Return the line of the first argument, for an operation that moves one tensor."""
        line = self.line(self.op.args[0])
        if line is None or any(self.lines.knows(t) for t in self.op.inputs[1:]):
            raise NotFollowedError(self.op.name)
        return line

    def put(self, t: Tensor, axis: int, slots: Tensor) -> None:
        """Note the line of a tensor that was put out."""
        self.lines.put(t, Line(axis, slots))


Rule = Callable[[Step], None]
RULES: dict[str, Rule] = {}


def rule(names: str) -> Callable[[Rule], Rule]:
    """Register a rule for operations, named as in ATen with spaces between."""

    def add(function: Rule) -> Rule:
        RULES.update(dict.fromkeys(names.split(), function))
        return function

    return add
