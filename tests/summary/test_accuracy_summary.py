"""The means of a run equal the metrics of the same names."""

from __future__ import annotations

import pytest
import torch

from fgadahat_hooks.metrics import functional
from fgadahat_hooks.summary.accuracy_summary import accuracy_summary

NAN = float("nan")
MATRICES = {
    "one task": [[0.5]],
    "triangle": [[0.9, NAN, NAN], [0.8, 0.7, NAN], [0.85, 0.6, 1.0]],
    "full": torch.rand(5, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64).tolist(),
    "not all learnt yet": [[0.9, NAN, NAN], [0.8, 0.7, NAN], [NAN, NAN, NAN]],
    "a gap in between": [[0.9, NAN, NAN], [NAN, 0.7, NAN], [0.85, 0.6, 1.0]],
    "only the end": [[NAN, NAN], [0.5, 0.6]],
    "better before it was learnt": [[0.9, 0.95, NAN], [0.8, 0.7, NAN], [0.85, 0.6, 1.0]],
}


@pytest.mark.parametrize("rows", MATRICES.values(), ids=MATRICES)
def test_the_means_are_those_of_the_metrics(rows: list[list[float]]) -> None:
    matrix = torch.tensor(rows, dtype=torch.float64)
    found = accuracy_summary(matrix)
    assert found is not None
    for name in ("average_accuracy", "learning_accuracy", "backward_transfer", "forgetting"):
        expected = float(getattr(functional, name)(matrix))
        assert getattr(found, name) == pytest.approx(expected, abs=1e-12, nan_ok=True), name


def test_each_task_when_learnt_and_at_the_end() -> None:
    found = accuracy_summary(torch.tensor(MATRICES["not all learnt yet"], dtype=torch.float64))
    assert found is not None
    assert (found.learnt, found.end) == ((0.9, 0.7), (0.8, 0.7))


@pytest.mark.parametrize("accuracy", [None, torch.zeros(0, 0), torch.full((2, 2), NAN)])
def test_nothing_measured(accuracy: torch.Tensor | None) -> None:
    assert accuracy_summary(accuracy) is None
