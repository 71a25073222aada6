"""Identities between the metrics of continual learning, on random accuracy matrices."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from fgadahat_hooks.metrics import functional

ACCURACIES = st.integers(0, 1000).map(lambda correct: correct / 1000)


@st.composite
def lower_triangles(draw: st.DrawFn, least: int = 2) -> Tensor:
    """Draw accuracies of all tasks learnt so far after each of 2 to 7 tasks."""
    tasks = draw(st.integers(least, 7))
    matrix = torch.full((tasks, tasks), torch.nan, dtype=torch.float64)
    for row in range(tasks):
        matrix[row, : row + 1] = torch.tensor(draw(st.lists(ACCURACIES, min_size=row + 1, max_size=row + 1)))
    return matrix


def close(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


@given(lower_triangles())
def test_average_accuracy_is_learning_accuracy_and_backward_transfer(matrix: Tensor) -> None:
    tasks = len(matrix)
    parts = functional.learning_accuracy(matrix) + (tasks - 1) / tasks * functional.backward_transfer(matrix)
    close(functional.average_accuracy(matrix), parts)


@given(lower_triangles())
def test_forgetting_is_at_least_what_backward_transfer_lost(matrix: Tensor) -> None:
    assert functional.forgetting(matrix) >= -functional.backward_transfer(matrix) - 1e-12


@given(lower_triangles())
def test_forgetting_is_backward_transfer_where_learning_time_is_best(matrix: Tensor) -> None:
    never_better = matrix.minimum(matrix.diagonal())
    close(functional.forgetting(never_better), -functional.backward_transfer(never_better))


@given(lower_triangles(least=1))
def test_a_later_row_does_not_change_what_was_said_before_it(matrix: Tensor) -> None:
    larger = torch.full((len(matrix) + 1, len(matrix) + 1), torch.nan, dtype=torch.float64)
    larger[:-1, :-1] = matrix
    for metric in (functional.average_accuracy, functional.learning_accuracy, functional.average_incremental_accuracy):
        assert torch.equal(metric(larger), metric(matrix))


@given(lower_triangles(least=1))
def test_the_mean_of_the_rows_is_the_incremental_accuracy(matrix: Tensor) -> None:
    rows = [functional.average_accuracy(matrix[:k, :k]) for k in range(1, len(matrix) + 1)]
    close(functional.average_incremental_accuracy(matrix), torch.stack(rows).mean())


@given(lower_triangles(), st.floats(0.01, 1))
def test_mean_intransigence_is_what_learning_accuracy_lacks(matrix: Tensor, joint: float) -> None:
    close(functional.intransigence(matrix, joint, "mean"), joint - functional.learning_accuracy(matrix))


@given(lower_triangles(least=1), st.floats(0, 0.4), st.floats(0.6, 1))
def test_the_ratio_is_zero_at_joint_and_minus_one_at_random(matrix: Tensor, random: float, joint: float) -> None:
    for row, value in ((joint, 0.0), (random, -1.0)):
        matrix[-1] = row
        close(functional.forgetting_ratio(matrix, joint, random), torch.tensor(value, dtype=torch.float64))
