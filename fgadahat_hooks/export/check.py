"""Two models on the same inputs: are their outputs the same bits, and if not, how far apart?"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from fgadahat_hooks.errors import ExportError
from fgadahat_hooks.graph.tracing.custom import has_own_forward
from fgadahat_hooks.graph.tracing.forward import ExampleInputs, output_tensors, own_copy, run_example, untouched
from fgadahat_hooks.graph.unit_graph import UnitGraph
from fgadahat_hooks.layers import layer_type_of


def outputs(model: nn.Module, inputs: ExampleInputs) -> list[Tensor]:
    """Return the floating-point tensors that a model puts out in evaluation, and leave the model as it was.

    Raises:
        TraceError: The forward raised.
    """
    with untouched(model):
        return [t.detach().clone() for t in output_tensors(run_example(model, own_copy(inputs)))]


def same_bits(a: list[Tensor], b: list[Tensor]) -> bool:
    """Return whether two lists of outputs are equal bit for bit, NaN where NaN is."""
    return len(a) == len(b) and all(_same(x, y) for x, y in zip(a, b, strict=True))


def _same(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and bool(((a == b) | (a.isnan() & b.isnan())).all())


def difference(a: list[Tensor], b: list[Tensor]) -> float:
    """Return the largest difference relative to the largest value of `a`, over all outputs; infinity if shapes differ.

    Where both are the same infinity, or both NaN, they do not differ.
    """
    if [t.shape for t in a] != [t.shape for t in b]:
        return float("inf")
    return max((_difference(x, y) for x, y in zip(a, b, strict=True)), default=0.0)


def _difference(a: Tensor, b: Tensor) -> float:
    if a.numel() == 0 or _same(a, b):
        return 0.0
    far = torch.where((a == b) | (a.isnan() & b.isnan()), 0.0, (a - b).abs().double())
    size = a[a.isfinite()].abs().double()
    found = float(far.max() / size.max().clamp_min(torch.finfo(a.dtype).tiny)) if size.numel() else float("inf")
    return float("inf") if found != found else found


def refuse_changed(task: Any, model: nn.Module, graph: UnitGraph, expected: list[Tensor], got: list[Tensor]) -> None:
    """Refuse a model whose outputs are not those of the attached one.

    Raises:
        ExportError: They differ; names the layers whose forward may be why.
    """
    if same_bits(expected, got):
        return
    names = [f"'{name}' ({type(model.get_submodule(name)).__name__})" for name in _suspects(model, graph)]
    why = f" Layers with a forward of their own: {', '.join(names)}." if names else ""
    raise ExportError(
        f"Expected the outputs of task {task!r} to stay the same with its gates written into the weights, but they "
        f"differ by {difference(expected, got):.1e} of their largest value.{why} Name such layers in gates.exclude "
        "before attaching, or evaluate under session.use. Nothing was changed."
    )


def _suspects(model: nn.Module, graph: UnitGraph) -> list[str]:
    """Return the gated layers that do more with their weight than their base class."""
    found = []
    for name, layer in graph.layers.items():
        module = model.get_submodule(name)
        kind = layer_type_of(module)
        if layer.position == "output" and kind is not None and has_own_forward(module, kind.own_class(module)):
            found.append(name)
    return found
