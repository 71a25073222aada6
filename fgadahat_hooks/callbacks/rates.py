"""From values per unit to adjustment rates per weight: which equation a mode of the spec stands for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fgadahat_hooks.callbacks.base import GatedLayer, TaskContext
from fgadahat_hooks.functional import adjust
from fgadahat_hooks.functional.aggregate import aggregate


@dataclass(frozen=True, eq=False)
class Shared:
    """What earlier tasks say of one weight or bias; each tensor broadcasts to the parameter.

    Attributes:
        protected: `min(m^{<t}_{l,i}, m^{<t}_{l-1,j})`.
        count: The same of the summative mask: how many tasks use the weight.
        importance: `Agg(I^{<t}_{l,i}, I^{<t}_{l-1,j})`.
        finished: Number of finished tasks.
        task: Number of the running task.
    """

    protected: Tensor
    count: Tensor
    importance: Tensor
    finished: int
    task: int


Rate = Callable[[Any, Shared, Tensor, torch.Generator | None], Tensor]


def _fg_adahat(spec: Any, shared: Shared, sparsity: Tensor, _: torch.Generator | None) -> Tensor:
    factor = adjust.SCHEDULERS[spec.scheduler](
        sparsity=sparsity,
        task=shared.task,
        count=shared.count,
        base_linear=spec.base_linear,
        base_mask_sparsity_reg=spec.base_mask_sparsity_reg,
    )
    importance = shared.importance
    if spec.filter_by_cumulative_mask:
        importance = adjust.filter_by_cumulative_mask(importance, shared.protected)
    return adjust.fg_adahat_rate(importance, factor, spec.intensity)


def _adahat(spec: Any, shared: Shared, sparsity: Tensor, _: torch.Generator | None) -> Tensor:
    return adjust.adahat_rate(shared.count, sparsity, spec.intensity, spec.epsilon)


def _no_sum(spec: Any, shared: Shared, sparsity: Tensor, _: torch.Generator | None) -> Tensor:
    return adjust.adahat_no_sum_rate(shared.count, shared.finished, sparsity, spec.intensity, spec.epsilon)


def _no_reg(spec: Any, shared: Shared, _: Tensor, __: torch.Generator | None) -> Tensor:
    return adjust.adahat_no_reg_rate(shared.count, spec.intensity, spec.epsilon)


def _hat(_: Any, shared: Shared, __: Tensor, ___: torch.Generator | None) -> Tensor:
    return adjust.hat_rate(shared.protected)


def _hat_random(_: Any, shared: Shared, __: Tensor, generator: torch.Generator | None) -> Tensor:
    return adjust.hat_random_rate(shared.protected, generator)


def _hat_const_alpha(spec: Any, shared: Shared, _: Tensor, __: torch.Generator | None) -> Tensor:
    return adjust.hat_const_alpha_rate(shared.protected, spec.alpha)


def _hat_const_1(_: Any, shared: Shared, __: Tensor, ___: torch.Generator | None) -> Tensor:
    return adjust.hat_const_1_rate(shared.protected)


RATES: dict[str, Rate] = {
    "fg_adahat": _fg_adahat,
    "adahat": _adahat,
    "adahat_no_sum": _no_sum,
    "adahat_no_reg": _no_reg,
    "hat": _hat,
    "hat_random": _hat_random,
    "hat_const_alpha": _hat_const_alpha,
    "hat_const_1": _hat_const_1,
}
"""The rate of each mode."""

CONSTANT = frozenset({"adahat_no_reg", "hat", "hat_const_alpha", "hat_const_1"})
"""Modes whose rates stay the same all through a task."""


def shared_values(context: TaskContext, layer: GatedLayer, importance: Tensor, aggregation: str) -> dict[str, Shared]:
    """Return what earlier tasks say of a layer's weight and bias.

    Args:
        context: The running task.
        layer: One gated layer.
        importance: Summed importance of all units, joined.
        aggregation: How the importance of a weight's two units becomes one.
    """
    masks = spread(layer, context.cumulative, "min", 1.0)
    counts = spread(layer, context.summative, "min", float("inf"))
    highest = float("inf") if aggregation == "min" else importance.max()
    values = spread(layer, importance, aggregation, highest)
    finished = context.state.finished
    parts = {"weight": 0, "bias": 1} if layer.bias is not None else {"weight": 0}
    device = layer.weight.device
    return {
        name: Shared(masks[k].to(device), counts[k].to(device), values[k].to(device), finished, context.number)
        for name, k in parts.items()
    }


def spread(layer: GatedLayer, joined: Tensor, mode: str, live: float | Tensor) -> tuple[Tensor, Tensor]:
    """Carry values of units over to a layer's weight and bias.

    A bias, and the weight of a layer without any gated predecessor, take the value of their own unit alone. An input
    that is always live counts with `live`. A weight whose entries are mixed takes the layer's largest value throughout.
    """
    info = layer.info
    own = joined[info.offset : info.offset + info.units].to(layer.gate.embedding.dtype)
    if info.whole and own.numel():
        own = own.max().expand_as(own)
    inputs = None
    if layer.inputs.has_predecessor and not info.whole:
        inputs = layer.kind.input_view(layer.module, layer.inputs.gather_max(joined, live).to(own.dtype))
    return aggregate(layer.kind.own_view(layer.module, own), inputs, mode), own
