"""Gains and biases of units written into the layers whose outputs they act on."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from fgadahat_hooks.gates.gain_site import fold_gains
from fgadahat_hooks.graph.unit_graph import GATE, UnitGraph
from fgadahat_hooks.layers import layer_type_of


def without_gains(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return a task's tensors but those of its gates, which a plain model has no place for."""
    return {name: value for name, value in tensors.items() if name.split(".")[-2:-1] != [GATE]}


def bake_gains(model: nn.Module, graph: UnitGraph, tensors: Mapping[str, Tensor]) -> None:
    """Scale the rows of each layer by its units' gains, and its bias; a layer without a bias gets one.

    A weight that other modules share is replaced by the layer's own.

    Args:
        model: A copy without gates, changed in place.
        graph: The unit graph of the attached model.
        tensors: The tensors of the task, by qualified name.
    """
    for name in graph.layers:
        layer = model.get_submodule(name)
        gain, bias, kind = *(tensors.get(f"{name}.{GATE}.{part}") for part in ("gain", "bias")), layer_type_of(layer)
        if gain is None or bias is None or kind is None or layer._parameters.get("weight") is None:
            continue
        with torch.no_grad():
            for local, value in fold_gains(layer, kind, gain, bias).items():
                layer._parameters[local] = nn.Parameter(
                    value, requires_grad=layer.get_parameter("weight").requires_grad
                )
