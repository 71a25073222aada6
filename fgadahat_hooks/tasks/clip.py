"""Multiply gradients by a mask of units: `session.clip_grad_by_mask`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

from fgadahat_hooks import registry
from fgadahat_hooks.callbacks.prior_use import to_weight
from fgadahat_hooks.errors import BadCallError
from fgadahat_hooks.gates.attached_model import AttachedModel
from fgadahat_hooks.gates.context import GatedLayer


def clip_grad_by_mask(attached: AttachedModel, mask: Mapping[str, Tensor], aggregation: str) -> None:
    """Multiply the gradients of all gated weights and biases; see `Session.clip_grad_by_mask`."""
    if aggregation not in registry.aggregations:
        names = list(registry.aggregations.names())
        raise BadCallError(f"Expected `aggregation` to be one of {names}, but got {aggregation!r}.")
    layers = attached.layers()
    _check_mask(layers, mask)
    joined = attached.graph.join({name: mask[name].to(torch.get_default_dtype()) for name in layers})
    with torch.no_grad():
        for layer in layers.values():
            for parameter, factor in _factors(layer, joined, aggregation):
                if parameter.grad is not None:
                    parameter.grad.mul_(factor.to(parameter.grad))


def _check_mask(layers: Mapping[str, GatedLayer], mask: Mapping[str, Tensor]) -> None:
    wrong = [n for n, layer in layers.items() if n not in mask or mask[n].shape != (layer.info.units,)]
    wrong += [n for n in mask if n not in layers]
    if wrong:
        raise BadCallError(
            "Expected one tensor of shape (units,) for every gated layer, but it is missing, unknown or of another "
            f"shape for: {', '.join(map(repr, wrong[:5]))}. `session.cumulative_mask` shows the form."
        )


def _factors(layer: GatedLayer, joined: Tensor, aggregation: str) -> Iterator[tuple[nn.Parameter, Tensor]]:
    """Give weight and bias of a layer, each with the factors of its elements."""
    factors = to_weight(layer, joined, aggregation, 1.0)
    for parameter, factor in zip((layer.weight, layer.bias), factors, strict=True):
        if parameter is not None:
            yield parameter, factor
