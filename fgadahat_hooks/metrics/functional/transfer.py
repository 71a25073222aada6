"""Backward and forward transfer: how learning a task changes accuracy on others."""

from __future__ import annotations

from torch import Tensor

from fgadahat_hooks.metrics.functional.matrix import Reference, learnt_part, validated_reference


def backward_transfer(matrix: Tensor) -> Tensor:
    """Return `BWT = 1/(T-1) sum_{j<T} (a[T, j] - a[j, j])` (Lopez-Paz and Ranzato 2017, Eq. 3).

    Below 0 is bad: later tasks made earlier ones worse. Above 0, they made them better.

    Args:
        matrix: Accuracy `a[i, j]` on task j after learning task i, `(tasks, tasks)`, NaN where not measured. `T` is the
            last task after which anything was measured.

    Returns:
        A scalar; NaN for `T < 2`, or if an entry of the diagonal or of row `T` is missing, columns below `T`.

    Raises:
        BadCallError: `matrix` is not a square matrix of floating point numbers.
    """
    part = learnt_part(matrix)
    return (part[-1:, :-1] - part.diagonal()[:-1]).mean()


def forward_transfer_gem(matrix: Tensor, untrained: Reference) -> Tensor:
    """Return GEM's `FWT = 1/(T-1) sum_{2<=j<=T} (a[j-1, j] - b_j)` (Lopez-Paz and Ranzato 2017, Eq. 4).

    Above 0 is good: earlier tasks help before a task is learnt. It has no meaning where a task has a head of its own,
    which is untrained until then; use `forward_transfer` there.

    Args:
        matrix: Accuracy `a[i, j]` on task j after learning task i, `(tasks, tasks)`, NaN where not measured. `T` is the
            last task after which anything was measured.
        untrained: Accuracy `b_j` of the model as initialised, `(tasks,)`, or a number for all tasks.

    Returns:
        A scalar; NaN for `T < 2`, or if `a[j-1, j]` or `b_j` is missing for a task `2 <= j <= T`.

    Raises:
        BadCallError: `matrix` is not a square matrix of floating point numbers, or `untrained` does not fit it.
    """
    part = learnt_part(matrix)
    reference = validated_reference(untrained, matrix, "untrained")[: len(part)]
    return (part.diagonal(1) - reference[1:]).mean()


def forward_transfer(matrix: Tensor, independent: Reference) -> Tensor:
    """Return `FWT = 1/(T-1) sum_{2<=j<=T} (a[j, j] - a^I_j)`, against runs that learn one task alone (CLArena).

    Above 0 is good: a task is learnt better after the earlier ones than alone. GEM's metric of the same name is
    `forward_transfer_gem`.

    Args:
        matrix: Accuracy `a[i, j]` on task j after learning task i, `(tasks, tasks)`, NaN where not measured. `T` is the
            last task after which anything was measured.
        independent: Accuracy `a^I_j` of a model that learnt task j alone, `(tasks,)`, or a number for all tasks. That
            of the first task is not used.

    Returns:
        A scalar; NaN for `T < 2`, or if `a[j, j]` or `a^I_j` is missing for a task `2 <= j <= T`.

    Raises:
        BadCallError: `matrix` is not a square matrix of floating point numbers, or `independent` does not fit it.
    """
    part = learnt_part(matrix)
    reference = validated_reference(independent, matrix, "independent")[: len(part)]
    return (part.diagonal() - reference)[1:].mean()
