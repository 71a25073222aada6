"""How earlier tasks use the weights of a layer: values per unit, carried over to values per weight."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from fgadahat_hooks.functional.aggregate import aggregate
from fgadahat_hooks.gates.context import GatedLayer, TaskContext


@dataclass(eq=False)
class UnitVectors:
    """What earlier tasks left, one value a unit, the units of all layers concatenated.

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
    """How earlier tasks use one weight or bias; each tensor broadcasts to it and is computed on first access.

    Attributes:
        finished: Number of finished tasks.
        task: Number of the running task.
    """

    def __init__(self, layer: GatedLayer, local_name: str, vectors: UnitVectors, context: TaskContext) -> None:
        """Describe a parameter of a layer by its local name, `weight` or `bias`."""
        self._layer = layer
        self._is_weight = local_name == "weight"
        self._vectors = vectors
        self.finished = context.state.finished
        self.task = context.number

    @cached_property
    def protected(self) -> Tensor:
        """`min(m^{<t}_{l,i}, m^{<t}_{l-1,j})`."""
        return self._to_parameter(self._vectors.cumulative, "min", 1.0)

    @cached_property
    def count(self) -> Tensor:
        """`min(m^{<t,sum}_{l,i}, m^{<t,sum}_{l-1,j})`: how many tasks use the weight."""
        return self._to_parameter(self._vectors.summative, "min", float("inf"))

    @cached_property
    def importance(self) -> Tensor:
        """`Agg(I^{<t}_{l,i}, I^{<t}_{l-1,j})`."""
        mode, values = self._vectors.aggregation, self._vectors.importance
        return self._to_parameter(values, mode, float("inf") if mode == "min" else values.max())

    @property
    def any_use(self) -> bool:
        """Whether any rate of it can be below 1: an entry is used by a task, or important to one."""
        return bool((self.count > 0).any() | (self.importance > 0).any())

    def drop_masks(self) -> None:
        """Free `protected` and `count`, once a constant rate holds the same information."""
        self.__dict__.pop("protected", None)
        self.__dict__.pop("count", None)

    def _to_parameter(self, values: Tensor, mode: str, live_value: float | Tensor) -> Tensor:
        weight, bias = to_weight(self._layer, values, mode, live_value)
        return (weight if self._is_weight else bias).to(self._layer.weight.device)


class UnitPriorUse:
    """The same as `PriorUse`, one value a unit, for rates that fall as the value rises.

    Then the rate of the smaller value is the larger rate, bit for bit, so rates are computed per unit and only then
    carried over to weights: one pass over the weights a step instead of three, and no tensor of their size is kept.

    Attributes:
        importance: Importance of the layer's own units, then of its inputs.
        count: How many tasks use each of them.
        protected: Whether any task does.
        finished: Number of finished tasks.
        task: Number of the running task.
    """

    def __init__(self, layer: GatedLayer, local_name: str, vectors: UnitVectors, context: TaskContext) -> None:
        """Describe a parameter of a layer by its local name, `weight` or `bias`."""
        self._layer = layer
        self._is_weight = local_name == "weight"
        self._rate_aggregation = "max" if vectors.aggregation == "min" else "min"
        live_importance = float("inf") if vectors.aggregation == "min" else vectors.importance.max()
        self.importance = self._own_and_inputs(vectors.importance, live_importance)
        self.count = self._own_and_inputs(vectors.summative, float("inf"))
        self.protected = self._own_and_inputs(vectors.cumulative, 1.0)
        self.finished = context.state.finished
        self.task = context.number

    def _own_and_inputs(self, values: Tensor, live_value: float | Tensor) -> Tensor:
        own, inputs = unit_values(self._layer, values, live_value)
        both = torch.cat([own, inputs]) if self._is_weight and inputs is not None else own
        return both.to(self._layer.weight.device)

    @property
    def any_use(self) -> bool:
        """Whether any rate of it can be below 1: a unit is used by a task, or important to one."""
        used = (self.count > 0) | (self.importance > 0)
        units = self._layer.info.units
        own = bool(used[:units].any())
        inputs = bool(used[units:].any()) if used.numel() > units else own
        return own and inputs if self._rate_aggregation == "max" else own or inputs

    def to_weight(self, rates: Tensor) -> Tensor:
        """Return rates that broadcast to the parameter, from the rates of own units and inputs."""
        if not self._is_weight:
            return rates
        units = self._layer.info.units
        own = self._layer.kind.unit_view(self._layer.module, rates[:units])
        if rates.numel() == units:
            return own
        return aggregate(own, self._layer.kind.input_view(self._layer.module, rates[units:]), self._rate_aggregation)


def prior_use(context: TaskContext, layer: GatedLayer, vectors: UnitVectors) -> dict[str, PriorUse]:
    """Return how earlier tasks use a layer's weight and bias, by local name."""
    return {name: PriorUse(layer, name, vectors, context) for name in _parameter_names(layer)}


def unit_prior_use(context: TaskContext, layer: GatedLayer, vectors: UnitVectors) -> dict[str, UnitPriorUse]:
    """Return the same with one value a unit, for the specs that `has_unit_rates` accepts."""
    return {name: UnitPriorUse(layer, name, vectors, context) for name in _parameter_names(layer)}


def _parameter_names(layer: GatedLayer) -> tuple[str, ...]:
    return ("weight",) if layer.bias is None else ("weight", "bias")


def to_weight(layer: GatedLayer, values: Tensor, mode: str, live_value: float | Tensor) -> tuple[Tensor, Tensor]:
    """Carry unit values over to a layer's weight and bias; a bias takes the value of its own unit alone.

    Args:
        layer: The layer.
        values: One value a unit, all layers concatenated, `(total units,)`.
        mode: How the values of a weight's two units become one: `min`, `max` or `mean`.
        live_value: The value of an input that is always live.
    """
    own, inputs = unit_values(layer, values, live_value)
    viewed = None if inputs is None else layer.kind.input_view(layer.module, inputs)
    return aggregate(layer.kind.unit_view(layer.module, own), viewed, mode), own


def unit_values(layer: GatedLayer, values: Tensor, live_value: float | Tensor) -> tuple[Tensor, Tensor | None]:
    """Return the values of a layer's own units and of its inputs, `(units,)` and `(inputs,)`.

    There are no input values for a layer without any gated predecessor: its weights take the value of their own unit
    alone. An input that is always live counts with `live_value`. A weight whose entries are mixed takes the model's
    largest value throughout: it may matter to a task that uses none of the layer's units.
    """
    info = layer.info
    own = values[info.offset : info.offset + info.units].to(layer.gate.embedding.dtype)
    if info.mixed_weight and own.numel():
        own = values.max().to(own).expand_as(own)
    if info.mixed_weight or not layer.inputs.has_predecessor:
        return own, None
    return own, layer.inputs.gather_max(values, live_value).to(own.dtype)
