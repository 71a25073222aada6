"""The plan as table rows."""

from __future__ import annotations

from dataclasses import dataclass

from fgadahat_hooks.protection.plan import LayerPlan, Plan

Row = tuple[str, ...]

_MEANING = {
    "gated": "move them as far as the adjustment rates let them",
    "per_task": "leave them alone: each task has its own copy",
    "frozen": "leave them alone: they stay as the first task leaves them",
    "shared": "train them, and so change finished tasks",
}


@dataclass(frozen=True)
class PlanTables:
    """Three tables: counts by protection, gated layers, and all tensors."""

    protections: list[Row]
    layers: list[Row]
    tensors: list[Row]


def plan_tables(plan: Plan) -> PlanTables:
    """Return all rows of a plan."""
    tensors: list[Row] = [(t.name, t.protection, t.kind, t.role, f"{t.numel:,}", t.reason) for t in plan.tensors]
    return PlanTables(_protections(plan), [_layer(layer) for layer in plan.layers], tensors)


def _protections(plan: Plan) -> list[Row]:
    counts = {name: sum(t.protection == name for t in plan.tensors) for name in _MEANING}
    return [(name, str(n), f"{plan.count(name):,}", _MEANING[name]) for name, n in counts.items() if n]


def _layer(layer: LayerPlan) -> Row:
    fed = ", ".join(f"{name} ({count})" for name, count in layer.producers.items())
    numbers = (str(layer.inputs), f"{layer.resolved:.0%}", fed or ("always live" if layer.inputs else "-"))
    return (layer.name, layer.kind, str(layer.units), layer.position, ", ".join(layer.sites) or "-", *numbers)
