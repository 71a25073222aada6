"""From values per unit to adjustment rates per weight: which equation a mode of the spec stands for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import torch
from torch import Tensor

from fgadahat_hooks.functional import adjust
from fgadahat_hooks.functional.aggregate import aggregate
from fgadahat_hooks.gates.context import GatedLayer, TaskContext


@dataclass(eq=False)
class UnitVectors:
    """What earlier tasks left, one value a unit, all layers joined.

    Attributes:
        cumulative: `m^{<t}`.
        summative: `m^{<t,sum}`.
        importance: Summed importance `I^{<t}`.
        aggregation: How the importance of a weight's two units becomes one.
    """

    cumulative: Tensor
    summative: Tensor
    importance: Tensor
    aggregation: str = "min"


class PriorUse:
    """What earlier tasks say of one weight or bias; each tensor broadcasts to the parameter, made when first asked for.

    Attributes:
        finished: Number of finished tasks.
        task: Number of the running task.
    """

    def __init__(self, layer: GatedLayer, local: str, joined: UnitVectors, context: TaskContext) -> None:
        """Take a parameter of a layer by its local name, `weight` or `bias`."""
        self._layer = layer
        self._part = 0 if local == "weight" else 1
        self._joined = joined
        self.finished = context.state.finished
        self.task = context.number

    @cached_property
    def protected(self) -> Tensor:
        """`min(m^{<t}_{l,i}, m^{<t}_{l-1,j})`."""
        return self._to_weight(self._joined.cumulative, "min", 1.0)

    @cached_property
    def count(self) -> Tensor:
        """The same of the summative mask: how many tasks use the weight."""
        return self._to_weight(self._joined.summative, "min", float("inf"))

    @cached_property
    def importance(self) -> Tensor:
        """`Agg(I^{<t}_{l,i}, I^{<t}_{l-1,j})`."""
        mode, values = self._joined.aggregation, self._joined.importance
        return self._to_weight(values, mode, float("inf") if mode == "min" else values.max())

    def _to_weight(self, values: Tensor, mode: str, live: float | Tensor) -> Tensor:
        return to_weight(self._layer, values, mode, live)[self._part].to(self._layer.weight.device)


class Values(Protocol):
    """What an equation takes of earlier tasks: one value a weight (`PriorUse`) or a unit (`UnitPriorUse`)."""

    finished: int
    task: int

    @property
    def protected(self) -> Tensor:
        """Whether an earlier task uses it."""

    @property
    def count(self) -> Tensor:
        """How many earlier tasks use it."""

    @property
    def importance(self) -> Tensor:
        """How important it is to them."""


Rate = Callable[[Any, Values, Tensor, torch.Generator | None], Tensor]


def _fg_adahat(spec: Any, shared: Values, sparsity: Tensor, _: torch.Generator | None) -> Tensor:
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


def _adahat(spec: Any, shared: Values, sparsity: Tensor, _: torch.Generator | None) -> Tensor:
    return adjust.adahat_rate(shared.count, sparsity, spec.intensity, spec.epsilon)


def _no_sum(spec: Any, shared: Values, sparsity: Tensor, _: torch.Generator | None) -> Tensor:
    return adjust.adahat_no_sum_rate(shared.count, shared.finished, sparsity, spec.intensity, spec.epsilon)


def _no_reg(spec: Any, shared: Values, _: Tensor, __: torch.Generator | None) -> Tensor:
    return adjust.adahat_no_reg_rate(shared.count, spec.intensity, spec.epsilon)


def _hat(_: Any, shared: Values, __: Tensor, ___: torch.Generator | None) -> Tensor:
    return adjust.hat_rate(shared.protected)


def _hat_random(_: Any, shared: Values, __: Tensor, generator: torch.Generator | None) -> Tensor:
    return adjust.hat_random_rate(shared.protected, generator)


def _hat_const_alpha(spec: Any, shared: Values, _: Tensor, __: torch.Generator | None) -> Tensor:
    return adjust.hat_const_alpha_rate(shared.protected, spec.alpha)


def _hat_const_1(_: Any, shared: Values, __: Tensor, ___: torch.Generator | None) -> Tensor:
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


def prior_use(context: TaskContext, layer: GatedLayer, joined: UnitVectors) -> dict[str, PriorUse]:
    """Return what earlier tasks say of a layer's weight and bias, by local name."""
    parts = ("weight",) if layer.bias is None else ("weight", "bias")
    return {local: PriorUse(layer, local, joined, context) for local in parts}


def unit_prior_use(context: TaskContext, layer: GatedLayer, joined: UnitVectors) -> dict[str, UnitPriorUse]:
    """Return the same one value a unit, for the modes that `is_by_unit` names."""
    parts = ("weight",) if layer.bias is None else ("weight", "bias")
    return {local: UnitPriorUse(layer, local, joined, context) for local in parts}


class UnitPriorUse:
    """The same as `PriorUse`, one value a unit, for rates that fall as the value rises.

    Then the rate of the smaller value is the larger rate, bit for bit, so rates are made for units and only then
    carried over to weights: one pass over the weights a step in place of three, and nothing of their size is kept.

    Attributes:
        importance: Importance of the layer's own units, then of its inputs.
        count: How many tasks use each of them.
        protected: Whether one does.
        finished: Number of finished tasks.
        task: Number of the running task.
    """

    def __init__(self, layer: GatedLayer, local: str, joined: UnitVectors, context: TaskContext) -> None:
        """Take a parameter of a layer by its local name, `weight` or `bias`."""
        self._layer = layer
        self._weight = local == "weight"
        self._mode = "max" if joined.aggregation == "min" else "min"
        live = float("inf") if joined.aggregation == "min" else joined.importance.max()
        self.importance = self._both(joined.importance, live)
        self.count = self._both(joined.summative, float("inf"))
        self.protected = self._both(joined.cumulative, 1.0)
        self.finished = context.state.finished
        self.task = context.number

    def _both(self, joined: Tensor, live: float | Tensor) -> Tensor:
        own, inputs = unit_values(self._layer, joined, live)
        both = torch.cat([own, inputs]) if self._weight and inputs is not None else own
        return both.to(self._layer.weight.device)

    def to_weight(self, rates: Tensor) -> Tensor:
        """Return rates that broadcast to the parameter, made of the rates of own units and inputs."""
        if not self._weight:
            return rates
        units = self._layer.info.units
        own = self._layer.kind.own_view(self._layer.module, rates[:units])
        if rates.numel() == units:
            return own
        return aggregate(own, self._layer.kind.input_view(self._layer.module, rates[units:]), self._mode)


def is_by_unit(spec: Any) -> bool:
    """Return whether a mode's rates can be made for units: they fall with one value, aggregated by `min` or `max`."""
    if spec.mode == "fg_adahat":
        scalar = spec.scheduler != "summative_mask_sparsity_reg"
        return scalar and not spec.filter_by_cumulative_mask and spec.aggregation in ("min", "max")
    return spec.mode in ("adahat", "adahat_no_sum")


def to_weight(layer: GatedLayer, joined: Tensor, mode: str, live: float | Tensor) -> tuple[Tensor, Tensor]:
    """Carry values of units over to a layer's weight and bias; a bias takes the value of its own unit alone."""
    own, inputs = unit_values(layer, joined, live)
    viewed = None if inputs is None else layer.kind.input_view(layer.module, inputs)
    return aggregate(layer.kind.own_view(layer.module, own), viewed, mode), own


def unit_values(layer: GatedLayer, joined: Tensor, live: float | Tensor) -> tuple[Tensor, Tensor | None]:
    """Return the values of a layer's own units and of its inputs, `(units,)` and `(inputs,)`.

    There are no inputs for a layer without any gated predecessor: its weights take the value of their own unit alone.
    An input that is always live counts with `live`. A weight whose entries are mixed takes the model's largest value
    throughout: it may matter to a task that uses none of the layer's units.
    """
    info = layer.info
    own = joined[info.offset : info.offset + info.units].to(layer.gate.embedding.dtype)
    if info.whole and own.numel():
        own = joined.max().to(own).expand_as(own)
    if info.whole or not layer.inputs.has_predecessor:
        return own, None
    return own, layer.inputs.gather_max(joined, live).to(own.dtype)
