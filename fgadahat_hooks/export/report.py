"""What a compact export removed, and what it had to keep."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor, nn

from fgadahat_hooks.export.channel_table import ChannelTable
from fgadahat_hooks.export.selection import Candidate
from fgadahat_hooks.graph.tracing.forward import ExampleInputs, copy_inputs, isolated_evaluation, run_example
from fgadahat_hooks.graph.unit_graph import UnitGraph
from fgadahat_hooks.layers import layer_type_of


class Saved(NamedTuple):
    """A number before and after."""

    before: int
    after: int

    def __str__(self) -> str:
        """Show both, and the share that is left."""
        left = f" ({self.after / self.before:.0%})" if self.before else ""
        return f"{self.before:,} -> {self.after:,}{left}"


@dataclass(frozen=True)
class ExportReport:
    """What an export with `compact=True` removed and kept; `print` it for the table.

    Attributes:
        parameters: Number of parameter elements.
        bytes: Bytes of all parameters and buffers.
        flops: Floating-point operations of one forward on the inputs compared on.
        removed: Number of units removed from each layer; layers that lost none are left out.
        kept: For each gated layer, the number of units that are off but had to be kept, by reason.
        difference: Largest difference of the outputs from those of the export that is not compact, on the inputs
            compared on, relative to the largest output.
        double: Whether both were compared in double precision; if not, in the model's own.
    """

    parameters: Saved
    bytes: Saved
    flops: Saved
    removed: dict[str, int]
    kept: dict[str, dict[str, int]]
    difference: float
    double: bool

    def __str__(self) -> str:
        """Return the table."""
        lines = [f"{name:<10} {value}" for name, value in self._sizes().items()]
        lines += [f"units removed: {sum(self.removed.values()):,}"]
        lines += [f"  {layer}: {units}" for layer, units in self.removed.items()]
        lines += ["units that are off and stay:"] if self.kept else []
        for layer, reasons in self.kept.items():
            lines += [f"  {layer}: {number}, {reason}" for reason, number in reasons.items()]
        return "\n".join(lines)

    def _sizes(self) -> dict[str, Saved]:
        return {"parameters": self.parameters, "bytes": self.bytes, "flops": self.flops}


def saved(before: nn.Module, after: nn.Module, inputs: ExampleInputs) -> tuple[Saved, Saved, Saved]:
    """Return parameters, bytes and FLOPs before and after."""
    return (
        Saved(_num_parameters(before), _num_parameters(after)),
        Saved(_num_bytes(before), _num_bytes(after)),
        Saved(_flops(before, inputs), _flops(after, inputs)),
    )


def _num_parameters(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def _num_bytes(model: nn.Module) -> int:
    tensors: list[Tensor] = [*model.parameters(), *model.buffers()]
    return sum(t.numel() * t.element_size() for t in tensors)


def _flops(model: nn.Module, inputs: ExampleInputs) -> int:
    """Return the floating-point operations of one forward, as torch counts them."""
    from torch.utils.flop_counter import FlopCounterMode  # imports triton

    counter = FlopCounterMode(display=False)
    with isolated_evaluation(model), counter:
        run_example(model, copy_inputs(inputs))
    return int(counter.get_total_flops())


def removed_units(before: nn.Module, after: nn.Module) -> dict[str, int]:
    """Return how many units each layer lost."""
    now = _unit_counts(after)
    return {name: units - now[name] for name, units in _unit_counts(before).items() if units > now[name]}


def _unit_counts(model: nn.Module) -> dict[str, int]:
    """Return the number of units of every layer of a known type."""
    types = {name: (layer_type_of(module), module) for name, module in model.named_modules()}
    return {name: kind.units(module) for name, (kind, module) in types.items() if kind is not None}


def kept_units(
    table: ChannelTable,
    graph: UnitGraph,
    masks: Mapping[str, Tensor],
    removed: set[int],
    failed: Mapping[Candidate, str],
) -> dict[str, dict[str, int]]:
    """Return for each gated layer how many of its dead units are kept, by reason."""
    failures = {group: reason for candidate, reason in failed.items() for group in candidate}
    outputs = {name: entry.outputs for entry in table.layers() for name, local in entry.owners if local == "weight"}
    found: dict[str, dict[str, int]] = {}
    for name in graph.layers:
        channels = outputs.get(name)
        if channels is not None:
            dead = channels[~masks[name].bool().cpu()]
            reasons = Counter(_reasons(table, dead, removed, failures))
            if reasons:
                found[name] = dict(reasons)
    return found


def _reasons(table: ChannelTable, dead: Tensor, removed: set[int], failures: Mapping[int, str]) -> Iterator[str]:
    """Yield why each dead unit that is not removed is kept."""
    for channel in dead.tolist():
        group = table.groups.group(channel)
        if group not in removed:
            yield table.groups.reason(channel) or failures.get(group, "not used in evaluation")
