"""Means and intervals over seeds."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Interval:
    """A mean with its 95 % interval.

    Attributes:
        mean: Mean over seeds.
        half: Half the width of the interval by Student's t; infinite for one seed.
        seeds: Number of seeds.
    """

    mean: float
    half: float
    seeds: int

    @property
    def low(self) -> float:
        """Lower end."""
        return self.mean - self.half

    @property
    def high(self) -> float:
        """Upper end."""
        return self.mean + self.half

    def text(self, sign: str = "") -> str:
        """Return `mean ± half` in percent or points; `sign` is `+` to show that of a difference."""
        mean = f"{100 * self.mean:{sign}.1f}"
        return mean if math.isinf(self.half) else f"{mean} ± {100 * self.half:.1f}"


# Two-sided 95 % points of Student's t for 1 to 19 degrees of freedom.
_T95 = (
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228,
    2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093,
)  # fmt: skip


def interval(values: Sequence[float]) -> Interval:
    """Return mean and 95 % interval of the mean of a few values (Student's t)."""
    count = len(values)
    if count < 2:
        return Interval(values[0], math.inf, count)
    point = _T95[min(count - 2, len(_T95) - 1)]
    return Interval(statistics.fmean(values), point * statistics.stdev(values) / math.sqrt(count), count)


def paired(values: Sequence[float], others: Sequence[float]) -> Interval:
    """Return mean and interval of the difference, seed by seed."""
    return interval([a - b for a, b in zip(values, others, strict=True)])
