"""The nine strategies that sum the importance of finished tasks (FG-AdaHAT Eq. 4).

Each maps the sum so far and the importances of all finished tasks, oldest first and the new one included, to the new
sum. The closed form after `T` tasks is `S = sum_tau w(T, tau) I_tau`; no weight rises with `tau`, and the `decrease`
strategies protect older tasks more. None of them changes or returns one of its arguments.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from torch import Tensor

from fgadahat_hooks.errors import BadCallError

Strategy = Callable[..., Tensor]
"""`(previous, importances, **params) -> Tensor`, the new sum of one layer, `(units,)`.

- `previous`: the sum before the newest task, `(units,)`; `None` after the first task.
- `importances`: `I_1 .. I_T` of all finished tasks, oldest first, `(units,)` each.
- `params`: the strategy's own parameters, by keyword.
"""


def _newest(importances: Sequence[Tensor]) -> Tensor:
    if not importances:
        raise BadCallError("Expected the importance of at least one finished task, but got none.")
    return importances[-1]


def _add(previous: Tensor | None, addend: Tensor) -> Tensor:
    return addend.clone() if previous is None else previous + addend


def _weighted_sum(importances: Sequence[Tensor], weight: Callable[[int], float]) -> Tensor:
    """Return `sum_tau w(age) I_tau`, `age = T - tau`, 0 for the newest task."""
    newest = len(importances) - 1
    total = _newest(importances) * _float_weight(weight, 0)
    for tau, importance in enumerate(importances[:-1]):
        total = total + importance * _float_weight(weight, newest - tau)
    return total


def _float_weight(weight: Callable[[int], float], age: int) -> float:
    try:
        return float(weight(age))
    except OverflowError:
        raise BadCallError(
            f"The weight of the oldest of {age + 1} tasks is too large for a float. "
            "Use a strategy that grows more slowly, such as 'add_all' or 'linear_decrease'."
        ) from None


def _require_above(name: str, value: float, bound: float) -> None:
    if not (math.isfinite(value) and value > bound):
        raise BadCallError(f"Expected `{name}` to be a finite number > {bound:g}, but got {value!r}.")


def add_latest(previous: Tensor | None, importances: Sequence[Tensor]) -> Tensor:
    """Return `S + I_T`; closed form `w = 1`."""
    return _add(previous, _newest(importances))


def add_all(previous: Tensor | None, importances: Sequence[Tensor]) -> Tensor:
    """Return `S + sum_{tau <= T} I_tau`; closed form `w = T - tau + 1`."""
    return _add(previous, _weighted_sum(importances, lambda age: 1))


def add_average(previous: Tensor | None, importances: Sequence[Tensor]) -> Tensor:
    """Return `S + (1/T) sum_{tau <= T} I_tau`; closed form `w = H_T - H_{tau-1}`, harmonic numbers."""
    return _add(previous, _weighted_sum(importances, lambda age: 1) / len(importances))


def linear_decrease(previous: Tensor | None, importances: Sequence[Tensor], *, linear_step: float) -> Tensor:
    """Return the sum with `w = step (T - tau) + 1`, `step` > 0; `step = 1` is `add_all`. `previous` is not used."""
    _require_above("linear_step", linear_step, 0)
    return _weighted_sum(importances, lambda age: linear_step * age + 1)


def quadratic_decrease(previous: Tensor | None, importances: Sequence[Tensor]) -> Tensor:
    """Return the sum with `w = (T - tau + 1)^2`. `previous` is not used."""
    return _weighted_sum(importances, lambda age: (age + 1) ** 2)


def cubic_decrease(previous: Tensor | None, importances: Sequence[Tensor]) -> Tensor:
    """Return the sum with `w = (T - tau + 1)^3`. `previous` is not used."""
    return _weighted_sum(importances, lambda age: (age + 1) ** 3)


def exponential_decrease(previous: Tensor | None, importances: Sequence[Tensor], *, exponential_rate: float) -> Tensor:
    """Return the sum with `w = rate^(T - tau + 1)`, `rate` > 1. `previous` is not used."""
    _require_above("exponential_rate", exponential_rate, 1)
    return _weighted_sum(importances, lambda age: exponential_rate ** (age + 1))


def log_decrease(previous: Tensor | None, importances: Sequence[Tensor], *, log_base: float) -> Tensor:
    """Return the sum with `w = log_base(T - tau + 1) + 1`, base > 1. `previous` is not used."""
    _require_above("log_base", log_base, 1)
    return _weighted_sum(importances, lambda age: math.log(age + 1, log_base) + 1)


def factorial_decrease(previous: Tensor | None, importances: Sequence[Tensor]) -> Tensor:
    """Return the sum with `w = (T - tau + 1)!`. `previous` is not used."""
    return _weighted_sum(importances, lambda age: math.factorial(age + 1))


STRATEGIES: dict[str, Strategy] = {
    "add_latest": add_latest,
    "add_all": add_all,
    "add_average": add_average,
    "linear_decrease": linear_decrease,
    "quadratic_decrease": quadratic_decrease,
    "cubic_decrease": cubic_decrease,
    "exponential_decrease": exponential_decrease,
    "log_decrease": log_decrease,
    "factorial_decrease": factorial_decrease,
}
"""The nine strategies by name."""
