"""One executed operation as a propagation rule gets it, and the table of all rules."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from fgadahat_hooks.export.channel_axes import ChannelAxes, ChannelAxis
from fgadahat_hooks.export.channel_groups import ChannelGroups
from fgadahat_hooks.export.channel_table import ChannelTable
from fgadahat_hooks.graph.tracing.operation import Operation, plain_tensors


class NotPropagatedError(Exception):
    """Raised by a rule that cannot propagate an operation: all channels it reads are kept, for the reason given."""


@dataclass(frozen=True)
class PropagationStep:
    """One executed operation, with the channel table and the channel axes known so far."""

    op: Operation
    table: ChannelTable
    axes: ChannelAxes

    @property
    def groups(self) -> ChannelGroups:
        """The channel groups."""
        return self.table.groups

    @property
    def out(self) -> Tensor:
        """The first output tensor."""
        if self.op.first_out is None:
            raise NotPropagatedError("puts out no tensor")
        return self.op.first_out

    @property
    def outs(self) -> list[Tensor]:
        """All output tensors."""
        return list(plain_tensors(self.op.out))

    def channel_axis(self, x: Any) -> ChannelAxis | None:
        """Return the channel axis of an argument; None if it is not tracked."""
        return self.axes.get(x) if isinstance(x, Tensor) else None

    def single_input(self) -> ChannelAxis:
        """Return the channel axis of the first argument, which must be the only argument that has one."""
        found = self.channel_axis(self.op.args[0])
        if found is None or any(self.axes.has(t) for t in self.op.inputs[1:]):
            raise NotPropagatedError(self.op.name)
        return found

    def record(self, t: Tensor, axis: int, channels: Tensor) -> None:
        """Record the channel axis of an output tensor."""
        self.axes.record(t, ChannelAxis(axis, channels))


Rule = Callable[[PropagationStep], None]
RULES: dict[str, Rule] = {}


def rule(names: str) -> Callable[[Rule], Rule]:
    """Register a rule for operations, given as their ATen names separated by spaces."""

    def register(function: Rule) -> Rule:
        RULES.update(dict.fromkeys(names.split(), function))
        return function

    return register
