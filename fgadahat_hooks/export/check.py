"""Compare the outputs of two models on the same inputs: element by element, or by their largest difference."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from fgadahat_hooks.errors import ExportError
from fgadahat_hooks.graph.tracing.custom_forwards import has_own_forward
from fgadahat_hooks.graph.tracing.forward import (
    ExampleInputs,
    copy_inputs,
    isolated_evaluation,
    output_tensors,
    run_example,
)
from fgadahat_hooks.graph.unit_graph import UnitGraph
from fgadahat_hooks.layers import layer_type_of


def outputs(model: nn.Module, inputs: ExampleInputs) -> list[Tensor]:
    """Return the floating-point outputs of a model in evaluation mode; the model is left as it was.

    Raises:
        TraceError: The forward raised.
    """
    with isolated_evaluation(model):
        return [t.detach().clone() for t in output_tensors(run_example(model, copy_inputs(inputs)))]


def equal_outputs(a: list[Tensor], b: list[Tensor]) -> bool:
    """Return whether two lists of outputs are equal in every element, counting NaN as equal to NaN."""
    return len(a) == len(b) and all(_same(x, y) for x, y in zip(a, b, strict=True))


def _same(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and bool(((a == b) | (a.isnan() & b.isnan())).all())


def difference(a: list[Tensor], b: list[Tensor]) -> float:
    """Return the largest difference relative to the largest value of `a`, over all outputs; infinity if shapes differ.

    Elements that are the same infinity, or both NaN, do not differ.
    """
    if [t.shape for t in a] != [t.shape for t in b]:
        return float("inf")
    return max((_difference(x, y) for x, y in zip(a, b, strict=True)), default=0.0)


def _difference(a: Tensor, b: Tensor) -> float:
    if a.numel() == 0 or _same(a, b):
        return 0.0
    distances = torch.where((a == b) | (a.isnan() & b.isnan()), 0.0, (a - b).abs().double())
    sizes = a[a.isfinite()].abs().double()
    if not sizes.numel():
        return float("inf")
    relative = float(distances.max() / sizes.max().clamp_min(torch.finfo(a.dtype).tiny))
    return float("inf") if math.isnan(relative) else relative


def require_equal_outputs(
    task: Any, model: nn.Module, graph: UnitGraph, expected: list[Tensor], found: list[Tensor]
) -> None:
    """Raise if the outputs of an exported model are not those of the attached one.

    Raises:
        ExportError: They differ; the message names the layers whose forward may be the reason.
    """
    if equal_outputs(expected, found):
        return
    own = _layers_with_own_forward(model, graph)
    names = [f"'{name}' ({type(model.get_submodule(name)).__name__})" for name in own]
    why = f" Layers with a forward of their own: {', '.join(names)}." if names else ""
    raise ExportError(
        f"Expected the outputs of task {task!r} to stay the same with its gates written into the weights, but they "
        f"differ by {difference(expected, found):.1e} of their largest value.{why} Name such layers in gates.exclude "
        "before attaching, or evaluate under session.use. Nothing was changed."
    )


def _layers_with_own_forward(model: nn.Module, graph: UnitGraph) -> list[str]:
    """Return the gated layers that do more with their weight than their base class."""
    names = []
    for name, layer in graph.layers.items():
        module = model.get_submodule(name)
        kind = layer_type_of(module)
        if layer.position == "output" and kind is not None and has_own_forward(module, kind.own_class(module)):
            names.append(name)
    return names
