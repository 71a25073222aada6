"""The plan: what is gated where, how every other tensor is protected, and the tables that show it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from fgadahat_hooks.graph.policy import TensorPolicy
from fgadahat_hooks.protection.plan_advice import megabytes


@dataclass(frozen=True)
class LayerPlan:
    """One gated layer.

    Attributes:
        name: Dotted name.
        kind: Class name of the layer.
        units: Number of units.
        position: Where the gate acts (`output`, `after_norm`, `weight`).
        sites: Modules at which it acts.
        producers: Layers that feed it, with the number of its inputs that each feeds.
        inputs: Number of input features.
        resolved: Fraction of the inputs whose producers are known; the others count as always live.
    """

    name: str
    kind: str
    units: int
    position: str
    sites: tuple[str, ...]
    producers: dict[str, int]
    inputs: int
    resolved: float


@dataclass(frozen=True)
class Plan:
    """The plan of a model; `print` it for the table.

    Attributes:
        layers: One row a gated layer, in order of execution.
        tensors: One row for every parameter and buffer of the model.
        heads: Names of the output layers.
        leaks: By what finished tasks can be changed, in plain words; empty when hard HAT is bit-exact.
        regated: Norms over channels of several layers, behind which these channels are gated once more, each with
            the fraction of its channels that is.
        advice: What will hold later tasks back, in plain words, with the remedy; empty if nothing is seen.
        task_bytes: Bytes that each finished task keeps for itself: its head, norms and copies.
        model_bytes: Bytes of the model's parameters and buffers.
        passed_over: Layers that a pattern matched and that get no gate, with the reason.
        unseen: Gated layers that the example inputs did not reach: experts that they did not choose.
        memory_advice: How to make `task_bytes` less; empty where it is not much.
    """

    layers: tuple[LayerPlan, ...]
    tensors: tuple[TensorPolicy, ...]
    heads: tuple[str, ...]
    leaks: tuple[str, ...]
    regated: dict[str, float] = field(default_factory=dict)
    advice: tuple[str, ...] = ()
    task_bytes: int = 0
    model_bytes: int = 0
    memory_advice: tuple[str, ...] = ()
    passed_over: Mapping[str, str] = field(default_factory=dict)
    unseen: tuple[str, ...] = ()

    def count(self, protection: str) -> int:
        """Return the number of parameter elements of a protection class."""
        return sum(t.numel for t in self.tensors if t.protection == protection and t.kind == "parameter")

    @property
    def parameters(self) -> int:
        """Number of parameter elements of the model, gates left out."""
        return sum(t.numel for t in self.tensors if t.kind == "parameter")

    def __str__(self) -> str:
        """Return the tables as text."""
        layers = (_aligned(layer_rows(self)), regate_lines(self), unused_lines(self))
        tables = (*layers, [*_aligned(tensor_rows(self)), *memory_lines(self)])
        parts = (*tables, leak_lines(self), advice_lines(self))
        return "\n\n".join("\n".join(lines) for lines in parts if lines)


# ------------------------------------------------------------------ the tables
_SHOWN = 3
"""How many producers of a layer, or norms, a line names."""


def layer_rows(plan: Plan) -> list[tuple[str, ...]]:
    """Return the table of gated layers, its heading first."""
    rows: list[tuple[str, ...]] = [("layer", "type", "units", "gate", "inputs", "resolved", "fed by (inputs)")]
    rows += [
        (p.name, p.kind, str(p.units), _gate_position(p), str(p.inputs), f"{p.resolved:.0%}", _fed_by(p))
        for p in plan.layers
    ]
    return rows


def regate_lines(plan: Plan) -> list[str]:
    """Name the norms behind which channels are gated once more; no line if there are none."""
    if not plan.regated:
        return []
    shown = [f"{name} ({share:.0%})" for name, share in list(plan.regated.items())[:_SHOWN]]
    more = f" and {len(plan.regated) - len(shown)} more" if len(plan.regated) > len(shown) else ""
    return [f"Gated once more behind norms over several layers' units (share of channels): {', '.join(shown)}{more}"]


def unused_lines(plan: Plan) -> list[str]:
    """Name the layers that got no gate, by reason, and the gated ones that no forward has shown yet."""
    lines = []
    for reason in dict.fromkeys(plan.passed_over.values()):
        lines.append(f"Without a gate, {reason}: {_names([n for n, r in plan.passed_over.items() if r == reason])}")
    if plan.unseen:
        lines.append(f"Gated, but not used by the example inputs (traced when first used): {_names(plan.unseen)}")
    return lines


def _names(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


def tensor_rows(plan: Plan) -> list[tuple[str, ...]]:
    """Return the table of tensors by protection and reason, its heading first and the sums last."""
    rows: list[tuple[str, ...]] = [("protection", "reason", "tensors", "parameters")]
    for key in dict.fromkeys((t.protection, t.reason) for t in plan.tensors):
        mine = [t for t in plan.tensors if (t.protection, t.reason) == key]
        rows.append((*key, str(len(mine)), f"{sum(t.numel for t in mine if t.kind == 'parameter'):,}"))
    rows.append(("all", f"heads: {', '.join(plan.heads) or 'none'}", str(len(plan.tensors)), f"{plan.parameters:,}"))
    return rows


def memory_lines(plan: Plan) -> list[str]:
    """Return what a task costs in memory, and how to make it less where it is much."""
    own, whole = megabytes(plan.task_bytes), megabytes(plan.model_bytes)
    line = f"Each task keeps {own} of its own; the model has {whole}."
    return [line, *(f"  - {text}" for text in plan.memory_advice)]


def leak_lines(plan: Plan) -> list[str]:
    """Return whether finished tasks can change, and by what."""
    if not plan.leaks:
        return ["Finished tasks keep their outputs bit for bit."]
    return ["Finished tasks can change, because", *(f"  - {leak}" for leak in plan.leaks)]


def advice_lines(plan: Plan) -> list[str]:
    """Return what will hold later tasks back; no line if nothing is seen."""
    return ["Later tasks may learn less, because", *(f"  - {advice}" for advice in plan.advice)] if plan.advice else []


def _gate_position(layer: LayerPlan) -> str:
    if layer.position == "output":
        return "on its output"
    sites = ", ".join(layer.sites)
    return f"after {sites}" if layer.position == "after_norm" else f"on weight rows in {sites or 'the model'}"


def _fed_by(layer: LayerPlan) -> str:
    if not layer.producers:
        return "(always live)" if layer.inputs else "(reads no features)"
    named = [f"{name} ({count})" for name, count in layer.producers.items()][:_SHOWN]
    more = len(layer.producers) - len(named)
    return ", ".join(named) + (f" and {more} more" if more else "")


def _aligned(rows: Sequence[tuple[str, ...]]) -> list[str]:
    """Return the lines of a table, its columns aligned and its heading underlined."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return [lines[0], "  ".join("-" * width for width in widths), *lines[1:]]
