from __future__ import annotations

import pytest
import torch

from fgadahat_hooks.errors import BadCallError
from fgadahat_hooks.functional import STRATEGIES

PARAMS: dict[str, dict[str, float]] = {name: {} for name in STRATEGIES} | {
    "linear_decrease": {"linear_step": 0.5},
    "exponential_decrease": {"exponential_rate": 3.0},
    "log_decrease": {"log_base": 2.0},
}
# With I_1 = 1 and I_2 = 100, the sum after two tasks shows both weights.
AFTER_TWO = {
    "add_latest": 101.0,
    "add_all": 102.0,
    "add_average": 1.5 + 50.0,
    "linear_decrease": 101.5,
    "quadratic_decrease": 104.0,
    "cubic_decrease": 108.0,
    "exponential_decrease": 309.0,
    "log_decrease": 102.0,
    "factorial_decrease": 102.0,
}


@pytest.mark.parametrize("name", sorted(STRATEGIES))
def test_after_two_tasks(name: str) -> None:
    first, second = torch.tensor([1.0]), torch.tensor([100.0])
    total = STRATEGIES[name](None, [first], **PARAMS[name])
    total = STRATEGIES[name](total, [first, second], **PARAMS[name])
    assert total.item() == pytest.approx(AFTER_TWO[name])


@pytest.mark.parametrize("name", sorted(STRATEGIES))
def test_arguments_are_left_alone(name: str) -> None:
    importances, previous = [torch.ones(2), torch.ones(2)], torch.ones(2)
    for before in (None, previous):
        STRATEGIES[name](before, importances, **PARAMS[name]).add_(5)
        STRATEGIES[name](before, importances[:1], **PARAMS[name]).add_(5)
    assert all(torch.equal(x, torch.ones(2)) for x in [*importances, previous])


@pytest.mark.parametrize("name", sorted(STRATEGIES))
def test_no_task_is_an_error(name: str) -> None:
    with pytest.raises(BadCallError, match="at least one finished task"):
        STRATEGIES[name](None, [], **PARAMS[name])


@pytest.mark.parametrize(
    ("name", "param", "value"),
    [
        ("linear_decrease", "linear_step", 0.0),
        ("exponential_decrease", "exponential_rate", 1.0),
        ("log_decrease", "log_base", 1.0),
        ("log_decrease", "log_base", float("nan")),
        ("exponential_decrease", "exponential_rate", float("inf")),
    ],
)
def test_parameter_out_of_bounds_is_an_error(name: str, param: str, value: float) -> None:
    with pytest.raises(BadCallError, match=rf"`{param}` to be a finite number > [01], but got {value}"):
        STRATEGIES[name](None, [torch.ones(1)], **{param: value})


@pytest.mark.parametrize(
    ("name", "tasks", "params"),
    [("factorial_decrease", 171, {}), ("exponential_decrease", 40, {"exponential_rate": 1e8})],
)
def test_weight_too_large_for_a_float_is_an_error(name: str, tasks: int, params: dict[str, float]) -> None:
    with pytest.raises(BadCallError, match="too large for a float"):
        STRATEGIES[name](None, [torch.ones(1)] * tasks, **params)
