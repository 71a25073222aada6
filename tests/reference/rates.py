"""Every adjustment rate, weight by weight, from the equations as printed (in the `r / (x + r)` form where given)."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Units:
    """The values of each unit of a layer during a task."""

    importance: list[float]
    cumulative: list[float]
    summative: list[float]


@dataclass
class Settings:
    """Parameters of the equations."""

    mode: str
    alpha: float
    task: int
    sparsity: float
    aggregation: str = "min"
    scheduler: str = "linear_sparsity_reg"
    filtered: bool = False
    base_linear: float = 10.0
    base_mask_sparsity_reg: float = 0.1
    epsilon: float = 0.1


def combine(own: float, other: float | None, aggregation: str) -> float:
    """Return a weight's value from those of its two units, or the own unit's value if there is no other."""
    if other is None:
        return own
    if aggregation == "min":
        return own if own < other else other
    if aggregation == "max":
        return own if own > other else other
    return (own + other) / 2


def fg_adahat(s: Settings, importance: float, cumulative: float, summative: float) -> float:
    """Return FG-AdaHAT Eq. 2 and 3."""
    if s.filtered:
        importance = importance * cumulative
    c = s.sparsity + s.base_mask_sparsity_reg
    if s.scheduler == "linear_sparsity_reg":
        c = (s.task + s.base_linear) * c
    if s.scheduler == "summative_mask_sparsity_reg":
        c = (summative + s.base_linear) * c
    return s.alpha / (c * importance + s.alpha)


def ada_hat(s: Settings, summative: float) -> float:
    """Return AdaHAT Eq. 9 and its ablations."""
    r = s.alpha / (s.sparsity + s.epsilon)
    if s.mode == "adahat_no_reg":
        r = s.alpha / s.epsilon
    if s.mode == "adahat_no_sum":
        summative = float(s.task - 1) if summative > 0 else 0.0
    return r / (summative + r)


def one_rate(s: Settings, importance: float, cumulative: float, summative: float) -> float:
    """Return the rate of one weight."""
    if s.mode == "fg_adahat":
        return fg_adahat(s, importance, cumulative, summative)
    if s.mode.startswith("adahat"):
        return ada_hat(s, summative)
    masked = cumulative == 1
    return {"hat": 0.0, "hat_const_alpha": s.alpha, "hat_const_1": 1.0}[s.mode] if masked else 1.0


def bias_rates(s: Settings, own: Units) -> list[float]:
    """Return the rate of each bias entry."""
    return [one_rate(s, *values) for values in zip(own.importance, own.cumulative, own.summative, strict=True)]


def weight_rates(s: Settings, own: Units, inputs: Units | None, columns: int, groups: int = 1) -> list[list[float]]:
    """Return the rate of the weight at (i, k), k < columns; the same for all positions of a kernel.

    In a convolution of several groups, (i, k) reads input `(i // units per group) * columns + k`.
    """
    rows = []
    units = len(own.importance)
    for i in range(units):
        row = []
        for k in range(columns):
            j = (i // (units // groups)) * columns + k
            other: tuple[float, float, float] | tuple[None, None, None] = (None, None, None)
            if inputs is not None:
                other = (inputs.importance[j], inputs.cumulative[j], inputs.summative[j])
            importance = combine(own.importance[i], other[0], s.aggregation)
            cumulative = combine(own.cumulative[i], other[1], "min")
            summative = combine(own.summative[i], other[2], "min")
            row.append(one_rate(s, importance, cumulative, summative))
        rows.append(row)
    return rows
