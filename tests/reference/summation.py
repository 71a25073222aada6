"""The nine strategies by the weight of each task in the closed form, exact where possible."""

from __future__ import annotations

import math
from fractions import Fraction


def weight(strategy: str, tasks: int, tau: int, step: float = 0.5, rate: float = 2, base: float = 2) -> float:
    """Return the weight of task tau, 1 to tasks, in the sum after all of them."""
    if strategy == "add_latest":
        return 1
    if strategy == "add_all":
        return tasks - tau + 1
    if strategy == "add_average":
        return float(sum(Fraction(1, n) for n in range(tau, tasks + 1)))
    if strategy == "linear_decrease":
        return step * (tasks - tau) + 1
    if strategy == "quadratic_decrease":
        return (tasks - tau + 1) ** 2
    if strategy == "cubic_decrease":
        return (tasks - tau + 1) ** 3
    if strategy == "exponential_decrease":
        return math.prod([rate] * (tasks - tau + 1))
    if strategy == "log_decrease":
        return math.log(tasks - tau + 1) / math.log(base) + 1
    return math.prod(range(1, tasks - tau + 2))


def summed(strategy: str, importances: list[list[float]], **params: float) -> list[float]:
    """Return the sum for every unit."""
    tasks = len(importances)
    weights = [weight(strategy, tasks, tau, **params) for tau in range(1, tasks + 1)]
    return [
        math.fsum(w * task[i] for w, task in zip(weights, importances, strict=True)) for i in range(len(importances[0]))
    ]
