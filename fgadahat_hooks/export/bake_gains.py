"""Gains and biases of units written into the layers whose outputs they act on."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from fgadahat_hooks.graph.unit_graph import GATE, UnitGraph
from fgadahat_hooks.layers import layer_type_of


def without_gains(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return a task's tensors but those of its gates, which a plain model has no place for."""
    return {name: value for name, value in tensors.items() if name.split(".")[-2:-1] != [GATE]}


def bake_gains(model: nn.Module, graph: UnitGraph, tensors: Mapping[str, Tensor]) -> bool:
    """Scale the rows of each layer by its units' gains, and its bias; a layer without a bias gets one.

    A weight that other modules share is replaced by the layer's own.

    Args:
        model: A copy without gates, changed in place.
        graph: The unit graph of the attached model.
        tensors: The tensors of the task, by qualified name.

    Returns:
        Whether there were any: outputs are then the same to rounding, not bit for bit.
    """
    found = False
    for name in graph.layers:
        gain, bias = (tensors.get(f"{name}.{GATE}.{part}") for part in ("gain", "bias"))
        if gain is not None and bias is not None:
            found = True
            _scale(model.get_submodule(name), gain, bias)
    return found


def _scale(layer: nn.Module, gain: Tensor, bias: Tensor) -> None:
    kind, weight, own = layer_type_of(layer), layer._parameters["weight"], layer._parameters.get("bias")
    if kind is None or weight is None:
        return
    with torch.no_grad():
        rows = kind.unit_view(layer, gain.to(weight))
        shift = bias.to(weight) if own is None else own * gain.to(own) + bias.to(own)
        layer._parameters["weight"] = nn.Parameter(weight * rows, requires_grad=weight.requires_grad)
        layer._parameters["bias"] = nn.Parameter(shift, requires_grad=weight.requires_grad)
