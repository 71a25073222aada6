"""What the summation callback sums, and when."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import fgadahat_hooks as fh
from fgadahat_hooks.errors import SpecError
from tests.reference.summation import summed as reference_sum
from tests.support.small import batches, learn, mlp

X = torch.randn(2, 4, dtype=torch.float64)


class Given(fh.Callback):
    """Gives each task a fixed importance; records the sum that its start sees."""

    priority = 10

    def __init__(self, importances: list[list[float] | None]) -> None:
        self.importances, self.sums = list(importances), []  # type: ignore[var-annotated]

    def on_task_start(self, context: fh.TaskContext) -> None:
        self.sums.append({n: v.clone() for n, v in context.state.summed_importance.items()})

    def on_task_end(self, context: fh.TaskContext) -> None:
        values = self.importances.pop(0)
        if values is not None:
            context.record.importance = {"0": torch.tensor(values, dtype=torch.float64)}


def sums(strategy: dict[str, Any], importances: list[list[float] | None]) -> list[dict[str, Tensor]]:
    """Return the summed importance at the start of each task and of one more."""
    given = Given([*importances, None])
    session = fh.attach(mlp(4, 3, 2), {}, X, [fh.SummationCallback(strategy), given])
    for task in range(len(importances) + 1):
        with session.task(task):
            pass
    return given.sums


@pytest.mark.parametrize(
    ("strategy", "params"),
    [("add_all", {}), ("add_latest", {}), ("factorial_decrease", {}), ("linear_decrease", {"linear_step": 0.5})],
)
def test_sums_follow_the_strategy(strategy: str, params: dict[str, float]) -> None:
    importances = [[1.0, 0.0, 2.0], [0.5, 3.0, 0.0], [0.25, 0.25, 8.0]]
    found = sums({"strategy": strategy, **params}, list(importances))
    assert found[0] == {}
    for tasks in (1, 2, 3):
        expected = reference_sum(strategy, importances[:tasks], **({"step": 0.5} if params else {}))
        torch.testing.assert_close(found[tasks]["0"], torch.tensor(expected, dtype=torch.float64), rtol=1e-13, atol=0)


def test_a_task_without_importance_leaves_the_sum_as_it_was() -> None:
    found = sums({"strategy": "add_latest"}, [[1.0, 2.0, 3.0], None])
    assert torch.equal(found[1]["0"], found[2]["0"])


def test_without_an_importance_callback_there_is_no_sum() -> None:
    session = fh.attach(mlp(4, 3, 2), {}, X, [fh.SummationCallback(), adjust := fh.GradientAdjustCallback()])
    learn(session, "a", batches(4, 2))
    assert session.importance("a") == {}
    assert adjust.hard


def test_an_aborted_task_leaves_the_sum_as_it_was() -> None:
    given = Given([[1.0, 2.0, 3.0], [9.0, 9.0, 9.0], None])
    session = fh.attach(mlp(4, 3, 2), {}, X, [given, fh.SummationCallback(), FailsOnce()])
    with session.task("a"):
        pass
    with pytest.raises(RuntimeError, match="once"), session.task("b"):
        pass
    with session.task("c"):
        pass
    assert torch.equal(given.sums[2]["0"], given.sums[1]["0"])
    assert session.tasks == ("a", "c")


class FailsOnce(fh.Callback):
    """Fails at the end of the second task."""

    def on_task_end(self, context: fh.TaskContext) -> None:
        if context.task == "b":
            raise RuntimeError("once")


def test_the_default_is_add_all() -> None:
    assert fh.SummationCallback().strategy == "add_all"
    assert fh.SummationCallback().state_key == "summation"


def test_a_missing_parameter_is_reported_by_the_constructor() -> None:
    with pytest.raises(SpecError, match="log_base"):
        fh.SummationCallback({"strategy": "log_decrease"})
