"""From a model, or from its unit graph and policies, to the plan."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from torch import nn

from fgadahat_hooks import registry
from fgadahat_hooks.errors import AlreadyAttachedError, BadCallError
from fgadahat_hooks.gates.gate import Gate
from fgadahat_hooks.graph.policy import TensorPolicy, classify
from fgadahat_hooks.graph.targets import find_targets
from fgadahat_hooks.graph.trace import ExampleInputs, trace
from fgadahat_hooks.graph.unit_graph import InputMap, UnitGraph
from fgadahat_hooks.protection.fresh_tables import frozen_fresh_tables
from fgadahat_hooks.protection.plan import LayerPlan, Plan
from fgadahat_hooks.protection.plan_advice import (
    advice_on_copies,
    advice_on_frozen_unused_layers,
    advice_on_narrow_layers,
    bytes_per_task,
    tensor_bytes,
)
from fgadahat_hooks.spec.attach_spec import AdjustmentSpec, AttachSpec, ImportanceSpec, to_spec


def plan(model: nn.Module, spec: Any = None, example_inputs: ExampleInputs | None = None) -> Plan:
    """Return what `attach` would do, for a model that is left as it is.

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
    return make_plan(model, graph, classify(model, graph, spec), spec.adjustment, spec)


def make_plan(
    model: nn.Module,
    graph: UnitGraph,
    policies: Sequence[TensorPolicy],
    adjustment: AdjustmentSpec | None,
    spec: AttachSpec,
) -> Plan:
    """Make a plan of a graph and policies; `adjustment` is the one in force, None if nothing adjusts updates."""
    layers = tuple(_layer_plan(model, graph, name) for name in graph.layers)
    leaks = (*_shared_tensors(policies), *_adjustment_leaks(adjustment), *_measure_leaks(adjustment, spec.importance))
    regated = {name: channels.resolved for name, channels in graph.regates.items()}
    copies, sizes = bytes_per_task(model, policies), tensor_bytes(model)
    model_bytes = sum(sizes.get(policy.name, 0) for policy in policies)
    units = {layer.name: layer.units for layer in layers}
    advice = (
        *frozen_fresh_tables(model, policies),
        *advice_on_frozen_unused_layers(graph.passed_over, policies),
        *advice_on_narrow_layers(units, spec.gates),
    )
    memory = (sum(copies.values()), model_bytes, tuple(advice_on_copies(model_bytes, copies, policies)))
    heads = (*graph.heads, *graph.head_parameters)
    return Plan(layers, tuple(policies), heads, leaks, regated, advice, *memory, graph.passed_over, graph.unseen)


def _layer_plan(model: nn.Module, graph: UnitGraph, name: str) -> LayerPlan:
    layer = graph.layers[name]
    module = model.get_submodule(name)
    inputs = graph.inputs.get(name, InputMap.all_live(0))
    producers = _producers(graph, inputs)
    return LayerPlan(
        name,
        type(module).__name__,
        layer.units,
        layer.position,
        layer.sites,
        producers,
        inputs.features,
        inputs.resolved,
    )


def _producers(graph: UnitGraph, inputs: InputMap) -> dict[str, int]:
    """Return the layers that feed some inputs, with the number of inputs that each feeds."""
    pairs = (graph.layer_of_unit[inputs.unit] * inputs.features + inputs.feature).unique()
    numbers = pairs // max(inputs.features, 1)
    counts = numbers.bincount(minlength=len(graph.layers)).tolist()
    return {name: count for name, count in zip(graph.layers, counts, strict=True) if count}


def _shared_tensors(policies: Iterable[TensorPolicy]) -> Iterator[str]:
    """Describe the tensors that every task trains, by the choice in the spec that made them so."""
    shared = [p for p in policies if p.protection == "shared"]
    for reason in dict.fromkeys(p.reason for p in shared):
        names = [p.name for p in shared if p.reason == reason]
        yield f"{reason}: every task trains {len(names)} tensor(s), first '{names[0]}'"


def _adjustment_leaks(adjustment: AdjustmentSpec | None) -> Iterator[str]:
    """Describe what lets gated weights move that finished tasks use; nothing for hard HAT on updates."""
    if adjustment is None:
        yield "callbacks: no GradientAdjustCallback among them, so later tasks move weights that earlier ones use"
    elif adjustment.mode != "hat":
        yield f"adjustment.mode: {adjustment.mode} lets later tasks move weights that earlier ones use"
    elif adjustment.apply_to != "update":
        yield "adjustment.apply_to: gradient lets momentum and weight decay move weights that earlier tasks use"


def _measure_leaks(adjustment: AdjustmentSpec | None, importance: ImportanceSpec | None) -> Iterator[str]:
    """Describe a measure under which finished tasks were seen to lose much."""
    if adjustment is None or adjustment.mode != "fg_adahat" or importance is None:
        return
    forgot = registry.measures.get(importance.type).forgot
    if forgot > 0:
        yield (
            f"importance.type: {importance.type} spans many orders of magnitude and protects units with small values "
            f"little: five tasks of digits forgot up to {forgot} points with it, and up to 0.7 with "
            "input_weight_abs_sum_x_activation_abs"
        )
