"""Shares, scales and learning rates by share, in plain loops over units and with exact fractions."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise

from torch import Tensor


def parts_of(units: int, tasks: int, first: Fraction) -> list[int]:
    """Cut a row of units at the rounded ends of each task's part; return how many units each task gets."""
    width = Fraction(units) / (tasks + first - 1)
    ends = [first * width] + [(first + t) * width for t in range(1, tasks)]
    cuts = [0] + [int(end + Fraction(1, 2)) for end in ends]
    return [max(1, b - a) for a, b in pairwise(cuts)]


def open_share(feeds: list[set[int]], live: list[bool], open_units: set[int]) -> float:
    """Count the inputs that are always live, or that an open unit feeds."""
    count = sum(1 for units, always in zip(feeds, live, strict=True) if always or units & open_units)
    return count / len(feeds)


def rescaled_rows(weight: Tensor, at_attach: Tensor, used: list[bool], share: float) -> Tensor:
    """Give each row that is not used the norm that it had at attach, over the root of the share of open inputs."""
    out = weight.clone()
    for row, in_use in enumerate(used):
        if not in_use:
            out[row] = weight[row] / weight[row].norm() * at_attach[row].norm() / share**0.5
    return out


def factor(lr: float, f: float, p: float, q: float, std: float, c: float, k: float) -> float:
    """Compute the factor of a layer's learning rate, term by term."""
    if q == 0 or f == 0:
        return 1.0
    first = 1 / f if 1 / f < c else c
    second = p**0.5 / (q * f)
    third = k * std / (f**0.5 * lr)
    smaller = second if second < third else third
    return first if first > smaller else smaller


def gradient_factor(lr: float, f: float, p: float, q: float, c: float, momentum: float = 0.0) -> float:
    """Compute the factor of a layer's learning rate under SGD, term by term."""
    if q == 0 or f == 0:
        return 1.0
    stable = (1 - momentum) / lr
    return sorted([c, p / (q * f), stable if stable > 1 else 1.0])[0]


def calibrated(values: list[float], target: float) -> tuple[float, float]:
    """Compute gain and bias of one unit from all its values: mean 0 and standard deviation `target` come out."""
    mean = sum(values) / len(values)
    std = (sum((v - mean) ** 2 for v in values) / len(values)) ** 0.5
    return (1.0, 0.0) if std <= 1e-4 * abs(mean) else (target / std, -mean * target / std)
