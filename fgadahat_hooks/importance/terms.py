"""The terms that closed-form measures are made of: checked tensors of a view, and their sums over weights."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from fgadahat_hooks.errors import BadCallError, CapabilityError
from fgadahat_hooks.importance.base import ConsumerView, LayerView

Term = Callable[["LayerView | ConsumerView"], Tensor]
"""Returns a weight-shaped tensor >= 0 of a layer or consumer."""


def _at_least_single(x: Tensor) -> Tensor:
    """Return `x` detached, and half precision as single: in half the square of a gradient would underflow."""
    x = x.detach()
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def _gradient(view: LayerView | ConsumerView) -> Tensor:
    if view.weight_grad is None:
        raise BadCallError(
            f"Expected layer {view.name!r} to have a gradient, but its weight.grad is None. "
            "Measure after backward() and before the gradients are cleared, on layers that the loss depends on "
            "and that are not frozen, or use a measure without gradients."
        )
    return _at_least_single(view.weight_grad)


def weight_abs(view: LayerView | ConsumerView) -> Tensor:
    """Return `|W|`, shape of the weight."""
    return _at_least_single(view.weight).abs()


def gradient_abs(view: LayerView | ConsumerView) -> Tensor:
    """Return `|G|`, `G` the gradient of the batch's loss, shape of the weight."""
    return _gradient(view).abs()


def gradient_square(view: LayerView | ConsumerView) -> Tensor:
    """Return `G^2`, the square of the batch's gradient (not the per-sample Fisher information)."""
    return _gradient(view).square()


def activation(view: LayerView) -> Tensor:
    """Return `<h>`, the mean over batch and positions of `|h|`, `(units,)`."""
    if view.activation is None:
        raise BadCallError(
            f"Expected layer {view.name!r} to have an activation, but there is none of this step. "
            "Measure after a forward through this layer."
        )
    return _at_least_single(view.activation)


def input_sum(view: LayerView, term: Term) -> Tensor:
    """Return `S_in`: the term of the layer's own weight, summed by unit, `(units,)`."""
    return view.kind.sum_by_unit(view.module, term(view))


def output_sum(view: LayerView, term: Term) -> Tensor:
    """Return `S_out`: the term of the weights that read each unit, summed over all consumers, `(units,)`.

    Raises:
        CapabilityError: If no consumer is known; a sum of 0 would silently leave the layer unprotected.
    """
    if not view.consumers:
        raise CapabilityError(
            f"Layer {view.name!r} has no known consumer, so its output weights cannot be measured. "
            "Use a measure of its input weights, gradients or activation."
        )
    total, *others = (_consumer_sum(consumer, term, view.units) for consumer in view.consumers)
    for consumer_sum in others:
        total = total + consumer_sum.to(total)
    return total


def _consumer_sum(consumer: ConsumerView, term: Term, units: int) -> Tensor:
    by_feature = consumer.sums.get(term)
    if by_feature is None:
        by_feature = consumer.sums[term] = consumer.kind.sum_by_input(consumer.module, term(consumer))
    unit, feature = consumer.unit.to(by_feature.device), consumer.feature.to(by_feature.device)
    return by_feature.new_zeros(units).index_add(0, unit, by_feature[feature])
