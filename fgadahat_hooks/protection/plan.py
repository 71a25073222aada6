"""What will be gated where, and how everything else is protected: the table a user reads before training."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from fgadahat_hooks.errors import AlreadyAttachedError, BadCallError
from fgadahat_hooks.gates.gate import Gate
from fgadahat_hooks.graph.policy import TensorPolicy, classify
from fgadahat_hooks.graph.targets import find_targets
from fgadahat_hooks.graph.trace import ExampleInputs, trace
from fgadahat_hooks.graph.unit_graph import InputMap, UnitGraph
from fgadahat_hooks.spec.attach_spec import AdjustmentSpec, to_spec


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
        leaks: What finished tasks can be changed by, in plain words; empty when hard HAT is bit-exact.
        regated: Norms over channels of several layers, behind which these channels are gated once more, each with
            the fraction of its channels for which that is so.
    """

    layers: tuple[LayerPlan, ...]
    tensors: tuple[TensorPolicy, ...]
    heads: tuple[str, ...]
    leaks: tuple[str, ...]
    regated: dict[str, float] = field(default_factory=dict)

    def count(self, protection: str) -> int:
        """Return the number of parameter elements of a protection class."""
        return sum(t.numel for t in self.tensors if t.protection == protection and t.kind == "parameter")

    @property
    def parameters(self) -> int:
        """Number of parameter elements of the model, gates left out."""
        return sum(t.numel for t in self.tensors if t.kind == "parameter")

    def __str__(self) -> str:
        """Return the table."""
        tables = _table(layer_rows(self)), _table(tensor_rows(self))
        parts = (tables[0], regate_lines(self), tables[1], leak_lines(self))
        return "\n\n".join("\n".join(lines) for lines in parts if lines)


def plan(model: nn.Module, spec: Any = None, example_inputs: ExampleInputs | None = None) -> Plan:
    """Say what `attach` would do, on a model that is left as it is.

    Args:
        model: Any module.
        spec: As for `attach`.
        example_inputs: As for `attach`, and needed here.

    Returns:
        The plan; `print` it for the table.

    Raises:
        SpecError: The spec is not valid.
        MatchError: Names in the spec do not fit the model.
        AlreadyAttachedError: The model is attached; its session has the plan.
        BadCallError: No example inputs were given.
        TraceError: The forward raised.

    Example:
        >>> import torch, fgadahat_hooks as fh
        >>> model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
        >>> fh.plan(model, {}, torch.randn(1, 4)).layers[0].position
        'output'
    """
    spec = to_spec({} if spec is None else spec)
    if any(isinstance(module, Gate) for module in model.modules()):
        raise AlreadyAttachedError("The model is attached already; its plan is `session.plan`.")
    if example_inputs is None:
        raise BadCallError(
            "Expected `example_inputs`: a plan is made by tracing one forward. Pass a tensor, a tuple of positional "
            "arguments, a dict of keyword arguments, or a function that calls the model."
        )
    targets = find_targets(model, spec)
    graph = trace(model, example_inputs, targets.request(spec))
    return make_plan(model, graph, classify(model, graph, spec), spec.adjustment)


def make_plan(
    model: nn.Module, graph: UnitGraph, policies: Sequence[TensorPolicy], adjustment: AdjustmentSpec | None
) -> Plan:
    """Put a graph and policies into a plan; `adjustment` is what is in force, None if nothing adjusts updates."""
    layers = tuple(_layer(model, graph, name) for name in graph.layers)
    regated = {name: channels.resolved for name, channels in graph.regates.items()}
    return Plan(layers, tuple(policies), graph.heads, tuple(_leaks(policies, adjustment)), regated)


def _layer(model: nn.Module, graph: UnitGraph, name: str) -> LayerPlan:
    layer = graph.layers[name]
    module = model.get_submodule(name)
    inputs = graph.inputs.get(name, InputMap.all_live(0))
    pairs = (graph.layer_of_unit[inputs.unit] * inputs.features + inputs.feature).unique()
    producers = pairs // max(inputs.features, 1)
    counts = producers.bincount(minlength=len(graph.layers)).tolist()
    found = {other: count for other, count in zip(graph.layers, counts, strict=True) if count}
    return LayerPlan(
        name, type(module).__name__, layer.units, layer.position, layer.sites, found, inputs.features, inputs.resolved
    )


def _leaks(policies: Iterable[TensorPolicy], adjustment: AdjustmentSpec | None) -> list[str]:
    leaks = []
    shared = [p for p in policies if p.protection == "shared"]
    for reason in dict.fromkeys(p.reason for p in shared):
        names = [p.name for p in shared if p.reason == reason]
        leaks.append(f"{reason}: every task trains {len(names)} tensor(s), first '{names[0]}'")
    if adjustment is None:
        leaks.append(
            "callbacks: no GradientAdjustCallback among them, so later tasks move weights that earlier ones use"
        )
    elif adjustment.mode != "hat":
        leaks.append(f"adjustment.mode: {adjustment.mode} lets later tasks move weights that earlier ones use")
    elif adjustment.apply_to != "update":
        leaks.append("adjustment.apply_to: gradient lets momentum and weight decay move weights that earlier tasks use")
    return leaks


# ------------------------------------------------------------------ the table
_SHOWN_PRODUCERS = 3


def layer_rows(plan: Plan) -> list[tuple[str, ...]]:
    """Return the table of gated layers, its heading first."""
    rows: list[tuple[str, ...]] = [("layer", "type", "units", "gate", "inputs", "resolved", "fed by (inputs)")]
    rows += [
        (p.name, p.kind, str(p.units), _where(p), str(p.inputs), f"{p.resolved:.0%}", _producers(p))
        for p in plan.layers
    ]
    return rows


def regate_lines(plan: Plan) -> list[str]:
    """Say behind which norms channels are gated once more; no line if there are none."""
    if not plan.regated:
        return []
    shown = [f"{name} ({share:.0%})" for name, share in list(plan.regated.items())[:_SHOWN_PRODUCERS]]
    more = f" and {len(plan.regated) - len(shown)} more" if len(plan.regated) > len(shown) else ""
    return [f"Gated once more behind norms over several layers' units (share of channels): {', '.join(shown)}{more}"]


def _where(layer: LayerPlan) -> str:
    if layer.position == "output":
        return "on its output"
    sites = ", ".join(layer.sites)
    return f"after {sites}" if layer.position == "after_norm" else f"on weight rows in {sites or 'the model'}"


def _producers(layer: LayerPlan) -> str:
    if not layer.producers:
        return "(always live)" if layer.inputs else "(reads no features)"
    named = [f"{name} ({count})" for name, count in layer.producers.items()][:_SHOWN_PRODUCERS]
    more = len(layer.producers) - len(named)
    return ", ".join(named) + (f" and {more} more" if more else "")


def tensor_rows(plan: Plan) -> list[tuple[str, ...]]:
    """Return the table of tensors by protection and reason, its heading first and the sums last."""
    rows: list[tuple[str, ...]] = [("protection", "reason", "tensors", "parameters")]
    for key in dict.fromkeys((t.protection, t.reason) for t in plan.tensors):
        mine = [t for t in plan.tensors if (t.protection, t.reason) == key]
        rows.append((*key, str(len(mine)), f"{sum(t.numel for t in mine if t.kind == 'parameter'):,}"))
    rows.append(("all", f"heads: {', '.join(plan.heads) or 'none'}", str(len(plan.tensors)), f"{plan.parameters:,}"))
    return rows


def leak_lines(plan: Plan) -> list[str]:
    """Say whether finished tasks can change, and by what."""
    if not plan.leaks:
        return ["Finished tasks keep their outputs bit for bit."]
    return ["Finished tasks can change, because", *(f"  - {leak}" for leak in plan.leaks)]


def _table(rows: Sequence[tuple[str, ...]]) -> list[str]:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return [lines[0], "  ".join("-" * width for width in widths), *lines[1:]]
