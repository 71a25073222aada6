"""Which steps are measured."""

from __future__ import annotations

import pytest

from fgadahat_hooks.callbacks import stride as module
from fgadahat_hooks.callbacks.stride import Stride


class Clock:
    """A clock that only moves when a test sets it."""

    def __init__(self) -> None:
        self.now = 100.0

    def perf_counter(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    fake = Clock()
    monkeypatch.setattr(module, "time", fake)
    return fake


def run(stride: Stride, clock: Clock, steps: int, step: float, cost: float) -> list[int]:
    """Return the numbers of the measured steps, with the clock advanced for each step and each measuring."""
    measured = []
    for number in range(steps):
        if stride.due():
            measured.append(number)
            clock.now += cost
            stride.record_measuring_time(cost)
        clock.now += step
    return measured


@pytest.mark.parametrize("every", [1, 2, 3, 7])
def test_every_nth_step_from_the_first(every: int, clock: Clock) -> None:
    assert run(Stride(every), clock, 20, 1.0, 50.0) == list(range(0, 20, every))


@pytest.mark.parametrize(("budget", "cost"), [(0.1, 1.0), (0.5, 1.0), (0.1, 3.0), (1.0, 1.0), (0.25, 0.01)])
def test_a_budget_bounds_the_share_of_time(budget: float, cost: float, clock: Clock) -> None:
    measured = run(Stride(1, budget), clock, 400, 1.0, cost)
    assert len(measured) * cost <= budget * 400 * 1.0 + cost
    assert len(measured) >= 0.8 * min(400, budget * 400 / cost)


def test_a_budget_never_measures_more_often_than_asked(clock: Clock) -> None:
    assert run(Stride(5, 1.0), clock, 20, 1.0, 0.001) == [0, 5, 10, 15]


def test_a_budget_follows_a_change_of_speed(clock: Clock) -> None:
    stride = Stride(1, 0.1)
    slow = run(stride, clock, 100, 1.0, 1.0)
    fast = run(stride, clock, 100, 11.0, 1.0)
    assert len(slow) <= 11
    assert len(fast) > 80


def test_a_resumed_stride_continues_where_it_was(clock: Clock) -> None:
    whole, begun, resumed = Stride(3), Stride(3), Stride(3)
    expected = run(whole, clock, 20, 1.0, 1.0)
    first = run(begun, clock, 8, 1.0, 1.0)
    resumed.load_state_dict(begun.state_dict())
    assert first + [8 + n for n in run(resumed, clock, 12, 1.0, 1.0)] == expected


def test_the_current_stride_is_part_of_the_state(clock: Clock) -> None:
    stride, resumed = Stride(1, 0.1), Stride(1, 0.1)
    run(stride, clock, 50, 1.0, 2.0)
    resumed.load_state_dict(stride.state_dict())
    assert resumed.state_dict() == stride.state_dict() != Stride(1, 0.1).state_dict()
