"""The 13 closed-form measures, entry by entry."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

Nested = Any
"""A weight as nested lists: `[unit][column]`, or `[unit][column][row][position]` for a convolution."""


@dataclass
class Reader:
    """A layer that reads the units: `pairs` lists which unit reaches which of its input features."""

    weight: Nested
    gradient: Nested
    groups: int
    pairs: list[tuple[int, int]]


@dataclass
class Layer:
    """A measured layer; activations are `[sample][unit]`, each unit a number or a map `[row][column]`."""

    weight: Nested
    gradient: Nested
    activation: Nested
    readers: list[Reader] = field(default_factory=list)


def numbers(nested: Nested) -> list[float]:
    """Return all numbers of nested lists."""
    if not isinstance(nested, list):
        return [nested]
    return [number for part in nested for number in numbers(part)]


def inputs_of(layer: Layer | Reader, what: str) -> Nested:
    """Return the weight or the gradient."""
    return layer.weight if what == "weight" else layer.gradient


def s_in(layer: Layer, what: str, f: Callable[[float], float]) -> list[float]:
    """Return the sum of f over all weights into each unit."""
    return [sum(f(x) for x in numbers(row)) for row in inputs_of(layer, what)]


def s_out(layer: Layer, what: str, f: Callable[[float], float]) -> list[float]:
    """Return the sum of f over all weights that read each unit, in all readers."""
    totals = [0.0] * len(layer.weight)
    for reader in layer.readers:
        rows = inputs_of(reader, what)
        for unit, feature in reader.pairs:
            for i, row in enumerate(rows):
                for k, entry in enumerate(row):
                    if (i // (len(rows) // reader.groups)) * len(row) + k == feature:
                        totals[unit] += sum(f(x) for x in numbers(entry))
    return totals


def mean_abs(layer: Layer) -> list[float]:
    """Return the mean over samples and positions of the absolute activation of each unit."""
    means = []
    for unit in range(len(layer.weight)):
        values = [abs(x) for sample in layer.activation for x in numbers(sample[unit])]
        means.append(sum(values) / len(values))
    return means


def square(x: float) -> float:
    """Return x times x."""
    return x * x


def times(a: list[float], b: list[float]) -> list[float]:
    """Return the products."""
    return [x * y for x, y in zip(a, b, strict=True)]


def one_over(a: list[float]) -> list[float]:
    """Return the reciprocals, kept finite."""
    return [1 / (x + 1e-8) for x in a]


MEASURES: dict[str, Callable[[Layer], list[float]]] = {
    "input_weight_abs_sum": lambda v: s_in(v, "weight", abs),
    "output_weight_abs_sum": lambda v: s_out(v, "weight", abs),
    "input_weight_gradient_abs_sum": lambda v: s_in(v, "gradient", abs),
    "output_weight_gradient_abs_sum": lambda v: s_out(v, "gradient", abs),
    "activation_abs": mean_abs,
    "input_weight_abs_sum_x_activation_abs": lambda v: times(s_in(v, "weight", abs), mean_abs(v)),
    "output_weight_abs_sum_x_activation_abs": lambda v: times(s_out(v, "weight", abs), mean_abs(v)),
    "input_weight_gradient_square_sum": lambda v: s_in(v, "gradient", square),
    "output_weight_gradient_square_sum": lambda v: s_out(v, "gradient", square),
    "input_weight_gradient_square_sum_x_activation_abs": lambda v: times(s_in(v, "gradient", square), mean_abs(v)),
    "output_weight_gradient_square_sum_x_activation_abs": lambda v: times(s_out(v, "gradient", square), mean_abs(v)),
    "cbp_adaptation": lambda v: one_over(s_in(v, "weight", abs)),
    "cbp_adaptive_contribution": lambda v: times(
        times(s_out(v, "weight", abs), mean_abs(v)), one_over(s_in(v, "weight", abs))
    ),
}
