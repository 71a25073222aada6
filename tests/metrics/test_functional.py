"""The functional metrics against a slow reference implementation, with and without missing entries."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from fgadahat_hooks.errors import BadCallError
from fgadahat_hooks.metrics import functional
from tests.reference import metrics as slow

NAN = torch.nan
PLAIN = (
    "average_accuracy",
    "average_incremental_accuracy",
    "learning_accuracy",
    "backward_transfer",
    "forgetting",
)
ONE_REFERENCE = ("forward_transfer_gem", "forward_transfer")


def close(found: Tensor, expected: Any) -> None:
    torch.testing.assert_close(
        found, torch.tensor(expected, dtype=torch.float64), rtol=1e-12, atol=1e-12, equal_nan=True
    )


def matrices(generator: torch.Generator) -> list[Tensor]:
    """Draw full matrices, lower triangles, both with missing entries, and lower triangles cut to their first rows."""
    found = []
    for tasks in range(1, 6):
        full = torch.rand(tasks, tasks, dtype=torch.float64, generator=generator)
        lower = full.masked_fill(torch.ones(tasks, tasks).triu(1).bool(), NAN)
        holes = torch.rand(tasks, tasks, generator=generator) < 0.15
        early = lower.clone()
        early[tasks // 2 :] = NAN
        found += [full, lower, full.masked_fill(holes, NAN), lower.masked_fill(holes, NAN), early]
    return found


@pytest.mark.parametrize("name", PLAIN)
def test_of_the_matrix_alone(name: str, generator: torch.Generator) -> None:
    for matrix in matrices(generator):
        close(getattr(functional, name)(matrix), getattr(slow, name)(matrix.tolist()))


@pytest.mark.parametrize("name", ONE_REFERENCE)
def test_of_the_matrix_and_one_run(name: str, generator: torch.Generator) -> None:
    for matrix in matrices(generator):
        reference = torch.rand(len(matrix), dtype=torch.float64, generator=generator)
        found = getattr(functional, name)(matrix, reference)
        close(found, getattr(slow, name)(matrix.tolist(), reference.tolist()))


def test_intransigence(generator: torch.Generator) -> None:
    for matrix in matrices(generator):
        joint = torch.rand(len(matrix), dtype=torch.float64, generator=generator)
        expected = slow.intransigence(matrix.tolist(), joint.tolist())
        close(functional.intransigence(matrix, joint, "none"), expected)
        close(functional.intransigence(matrix, joint, "mean"), slow.mean(expected))
        close(functional.intransigence(matrix, joint), slow.mean(expected[-1:]))


def test_forgetting_ratio_of_a_joint_run_for_each_number_of_tasks(generator: torch.Generator) -> None:
    for matrix in matrices(generator):
        joint = 1 + torch.rand(len(matrix), len(matrix), dtype=torch.float64, generator=generator)
        random = torch.rand(len(matrix), dtype=torch.float64, generator=generator)
        expected = slow.forgetting_ratio(matrix.tolist(), joint.tolist(), random.tolist())
        close(functional.forgetting_ratio(matrix, joint, random), expected)


def test_forgetting_ratio_of_one_joint_run_is_of_all_tasks_only(generator: torch.Generator) -> None:
    for matrix in matrices(generator):
        joint, random = 1 + torch.rand(2, len(matrix), dtype=torch.float64, generator=generator)
        expected = slow.ratio(matrix.tolist(), joint.tolist(), random.tolist())
        whole = len(matrix) == slow.Accuracies(matrix.tolist()).T
        close(functional.forgetting_ratio(matrix, joint, random), expected if whole else NAN)
        close(functional.forgetting_ratio_independent(matrix, joint, random), expected)


def test_by_hand() -> None:
    matrix = torch.tensor([[0.9, 0.2, NAN], [0.8, 0.7, NAN], [0.6, 0.75, 0.5]], dtype=torch.float64)
    assert functional.average_accuracy(matrix).item() == pytest.approx((0.6 + 0.75 + 0.5) / 3)
    assert functional.learning_accuracy(matrix).item() == pytest.approx((0.9 + 0.7 + 0.5) / 3)
    assert functional.average_incremental_accuracy(matrix).item() == pytest.approx((0.9 + 0.75 + 1.85 / 3) / 3)
    assert functional.backward_transfer(matrix).item() == pytest.approx((-0.3 + 0.05) / 2)
    assert functional.forgetting(matrix).item() == pytest.approx((0.3 - 0.05) / 2)
    assert functional.forward_transfer(matrix, [NAN, 0.6, 0.6]).item() == pytest.approx((0.1 - 0.1) / 2)
    assert functional.forward_transfer_gem(matrix[:2, :2], 0.1).item() == pytest.approx(0.1)
    assert functional.intransigence(matrix, 0.9).item() == pytest.approx(0.4)
    assert functional.forgetting_ratio(matrix, 0.9, 0.1).item() == pytest.approx((5 / 8 + 6.5 / 8 + 4 / 8) / 3 - 1)


def test_an_accuracy_before_learning_counts_in_the_best_one() -> None:
    better_before = torch.tensor([[0.9, 0.8, NAN], [0.9, 0.7, NAN], [0.9, 0.6, 0.5]], dtype=torch.float64)
    assert functional.forgetting(better_before).item() == pytest.approx(0.1)


def test_nothing_forgotten_is_exactly_zero() -> None:
    accuracies = torch.tensor([1 / 3, 0.1, 0.7, 2 / 3])
    matrix = accuracies.expand(4, 4).masked_fill(torch.ones(4, 4).triu(1).bool(), NAN)
    assert functional.backward_transfer(matrix).item() == 0.0
    assert functional.forgetting(matrix).item() == 0.0


@pytest.mark.parametrize("name", ["backward_transfer", "forgetting", "forward_transfer", "forward_transfer_gem"])
def test_transfer_needs_two_tasks(name: str) -> None:
    more = (0.1,) if "forward" in name else ()
    for matrix in (torch.tensor([[0.9]]), torch.tensor([[0.9, NAN], [NAN, NAN]])):
        assert getattr(functional, name)(matrix, *more).isnan()


@pytest.mark.parametrize("tasks", [0, 1, 3])
def test_nothing_measured_is_nan(tasks: int) -> None:
    empty = torch.full((tasks, tasks), NAN)
    for name in PLAIN:
        assert getattr(functional, name)(empty).isnan(), name
    for name in (*ONE_REFERENCE, "intransigence"):
        assert getattr(functional, name)(empty, 0.1).isnan(), name
    for name in ("forgetting_ratio", "forgetting_ratio_independent"):
        assert getattr(functional, name)(empty, 0.9, 0.1).isnan(), name
    assert functional.intransigence(empty, 0.1, "none").shape == (0,)


def test_no_room_between_the_references_is_nan() -> None:
    matrix = torch.tensor([[0.9, NAN], [0.8, 0.7]])
    assert functional.forgetting_ratio(matrix, [0.5, 0.9], 0.5).isnan()


def test_references_are_brought_to_the_matrix() -> None:
    matrix = torch.eye(2, dtype=torch.float64)
    for reference in ([1, 0], (1.0, 0.0), torch.tensor([1, 0]), torch.tensor([1.0, 0.0], dtype=torch.half)):
        assert functional.forward_transfer(matrix, reference).item() == 1.0


def test_references_lose_no_digit() -> None:
    matrix = torch.tensor([[0.9, NAN], [0.8, 0.7]], dtype=torch.float64)
    assert functional.forward_transfer(matrix, [0.1, 0.7]).item() == 0.0
    assert functional.intransigence(matrix, 0.7).item() == 0.0


def test_arguments_stay_as_they_are(generator: torch.Generator) -> None:
    matrix, reference = torch.rand(3, 3, generator=generator), torch.rand(3, generator=generator)
    matrix[0, 1] = NAN
    before = matrix.clone(), reference.clone()
    functional.forgetting(matrix)
    functional.intransigence(matrix, reference)
    functional.forgetting_ratio(matrix, reference, reference)
    torch.testing.assert_close((matrix, reference), before, rtol=0, atol=0, equal_nan=True)


# ---------------------------------------------------------------- masks
MASKS = torch.tensor([[1, 1, 0, 0, 0], [0, 1, 1, 1, 0], [0, 0, 0, 0, 0], [0, 1, 0, 0, 0]])


@pytest.mark.parametrize("name", ["mask_use", "cumulative_mask_use", "mask_overlap", "free_unit_fraction"])
@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.float32])
def test_of_masks(name: str, dtype: torch.dtype) -> None:
    torch.set_default_dtype(torch.float64)
    close(getattr(functional, name)(MASKS.to(dtype)), getattr(slow, name)(MASKS.tolist()))


def test_no_task_leaves_all_units_free() -> None:
    assert functional.free_unit_fraction(torch.zeros(0, 3)).item() == 1.0
    assert functional.mask_overlap(torch.zeros(0, 3)).shape == (0, 0)


def test_no_units_is_nan() -> None:
    assert functional.free_unit_fraction(torch.zeros(2, 0)).isnan()
    assert functional.mask_use(torch.zeros(2, 0)).isnan().all()


# ---------------------------------------------------------------- wrong calls
BAD: list[tuple[str, Callable[[], Tensor], str]] = [
    (
        "no tensor",
        lambda: functional.average_accuracy([[1.0]]),  # type: ignore[arg-type]
        "Expected `matrix` to be a tensor of shape (tasks, tasks), but got [[1.0]].",
    ),
    (
        "not square",
        lambda: functional.forgetting(torch.zeros(2, 3)),
        "Expected `matrix` to be a tensor of shape (tasks, tasks), but got shape (2, 3).",
    ),
    (
        "counts",
        lambda: functional.backward_transfer(torch.zeros(2, 2, dtype=torch.long)),
        "Expected `matrix` to hold floating point numbers, but got torch.int64.",
    ),
    (
        "too few references",
        lambda: functional.forward_transfer(torch.zeros(3, 3), [0.1, 0.2]),
        "Expected `independent` to be a number or to have shape (3,), one number a task of the matrix, but got shape "
        "(2,).",
    ),
    (
        "no number",
        lambda: functional.forward_transfer_gem(torch.zeros(3, 3), "much"),  # type: ignore[arg-type]
        "Expected `untrained` to be a number or a tensor of numbers, but got 'much'.",
    ),
    (
        "uneven",
        lambda: functional.forgetting_ratio(torch.zeros(2, 2), [[0.1], [0.1, 0.2]], 0.1),  # type: ignore[list-item]
        "Expected `joint` to be a number or a tensor of numbers, but got [[0.1], [0.1, 0.2]].",
    ),
    (
        "joint of another size",
        lambda: functional.forgetting_ratio(torch.zeros(3, 3), torch.zeros(2, 2), 0.1),
        "Expected `joint` to be a number or to have shape (3,) or (3, 3), as the matrix has 3 tasks, but got shape "
        "(2, 2).",
    ),
    (
        "no such reduction",
        lambda: functional.intransigence(torch.zeros(2, 2), 0.1, "sum"),  # type: ignore[arg-type]
        "Expected `reduction` to be one of ['last', 'mean', 'none'], but got 'sum'.",
    ),
    (
        "masks of one task",
        lambda: functional.mask_use(torch.zeros(3)),
        "Expected `masks` to be a tensor of shape (tasks, units), but got shape (3,).",
    ),
]


@pytest.mark.parametrize(("call", "message"), [case[1:] for case in BAD], ids=[case[0] for case in BAD])
def test_a_wrong_call_is_reported(call: Callable[[], Tensor], message: str) -> None:
    with pytest.raises(BadCallError) as caught:
        call()
    assert str(caught.value) == message
