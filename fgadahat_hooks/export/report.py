"""What a compact export saved, and what it had to keep."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor, nn

from fgadahat_hooks.export.choose import Cut
from fgadahat_hooks.export.shrink import count, widths
from fgadahat_hooks.export.slots import SlotTable
from fgadahat_hooks.graph.tracing.forward import ExampleInputs, own_copy, run_example, untouched
from fgadahat_hooks.graph.unit_graph import UnitGraph


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
    """What became of a model that was exported with `compact=True`; `print` it for the table.

    Attributes:
        parameters: Number of parameter elements.
        bytes: Bytes of all parameters and buffers.
        flops: Floating-point operations of one forward on the inputs that were checked with.
        removed: Number of units removed from each layer, layers of which nothing was removed left out.
        kept: For each gated layer, why how many of the units that are off had to stay.
        difference: Largest difference of the outputs from those of the export that is not compact, on the inputs
            checked with, relative to the largest output.
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


def flops(model: nn.Module, inputs: ExampleInputs) -> int:
    """Return the floating-point operations of one forward, as torch counts them."""
    from torch.utils.flop_counter import FlopCounterMode  # brings triton

    counter = FlopCounterMode(display=False)
    with untouched(model), counter:
        run_example(model, own_copy(inputs))
    return int(counter.get_total_flops())


def removed_units(before: nn.Module, after: nn.Module) -> dict[str, int]:
    """Return how many units each layer lost."""
    now = widths(after)
    return {name: units - now[name] for name, units in widths(before).items() if units > now[name]}


def kept_units(
    table: SlotTable, graph: UnitGraph, masks: Mapping[str, Tensor], gone: set[int], failed: Mapping[Cut, str]
) -> dict[str, dict[str, int]]:
    """Return for each gated layer why how many of its dead units stay."""
    why = {root: reason for cut, reason in failed.items() for root in cut}
    rows = {name: entry.outputs for entry in table.layers() for name, local in entry.owners if local == "weight"}
    found: dict[str, dict[str, int]] = {}
    for name in graph.layers:
        slots = rows.get(name)
        for slot in [] if slots is None else slots[~masks[name].bool().cpu()].tolist():
            root = table.slots.root(slot)
            if root not in gone:
                reason = table.slots.reason(slot) or why.get(root, "not used in evaluation")
                reasons = found.setdefault(name, {})
                reasons[reason] = reasons.get(reason, 0) + 1
    return found


def saved(before: nn.Module, after: nn.Module, inputs: ExampleInputs) -> tuple[Saved, Saved, Saved]:
    """Return parameters, bytes and FLOPs before and after."""
    (parameters, size), (fewer, smaller) = count(before), count(after)
    return (
        Saved(parameters, fewer),
        Saved(size, smaller),
        Saved(flops(before, inputs), flops(after, inputs)),
    )
