"""Forgetting ratios: accuracy on a scale from random guessing (-1) to a reference model (0)."""

from __future__ import annotations

import torch
from torch import Tensor

from fgadahat_hooks.errors import BadCallError
from fgadahat_hooks.metrics.functional.matrix import Reference, as_numbers, learnt_part, validated_reference


def forgetting_ratio(matrix: Tensor, joint: Reference, random: Reference) -> Tensor:
    """Return `rho = 1/T sum_{j<=T} (a[T, j] - a^R_j) / (a^J[T, j] - a^R_j) - 1` (Serrà et al. 2018, HAT, Eq. 6).

    0 is as good as joint training, -1 as bad as guessing; below 0 is bad.

    Args:
        matrix: Accuracy `a[i, j]` on task j after learning task i, `(tasks, tasks)`, NaN where not measured. `T` is the
            last task after which anything was measured.
        joint: Accuracy of joint training. `(tasks, tasks)`: `a^J[t, j]` on task j of a model that learnt tasks 1 to t
            together, as in the paper. `(tasks,)`, or a number: one model that learnt all tasks together, as in CLArena;
            the ratio is NaN before the last task.
        random: Accuracy `a^R_j` of guesses that follow the classes' frequencies, `(tasks,)`, or a number for all tasks.

    Returns:
        A scalar; NaN if an entry of row `T`, or its reference, is missing, if both references of a task are equal, or
        if there is only one joint model and some tasks are not learnt yet.

    Raises:
        BadCallError: `matrix` is not a square matrix of floating point numbers, or a reference does not fit it.
    """
    part = learnt_part(matrix)
    upper = validated_joint(joint, matrix)
    lower = validated_reference(random, matrix, "random")[: len(part)]
    if upper.ndim == 1:
        return _ratio(part, upper, lower) if len(part) == len(matrix) else part.new_tensor(torch.nan)
    return _ratio(part, upper[len(part) - 1, : len(part)], lower)


def forgetting_ratio_independent(matrix: Tensor, independent: Reference, random: Reference) -> Tensor:
    """Return `1/T sum_{j<=T} (a[T, j] - a^R_j) / (a^I_j - a^R_j) - 1`, against runs of one task each (CLArena).

    0 is as good as a model for each task, -1 as bad as guessing; below 0 is bad, and values above 0 are kept as they
    are.

    Args:
        matrix: Accuracy `a[i, j]` on task j after learning task i, `(tasks, tasks)`, NaN where not measured. `T` is the
            last task after which anything was measured.
        independent: Accuracy `a^I_j` of a model that learnt task j alone, `(tasks,)`, or a number for all tasks.
        random: Accuracy `a^R_j` of guesses that follow the classes' frequencies, `(tasks,)`, or a number for all tasks.

    Returns:
        A scalar; NaN if an entry of row `T`, or its reference, is missing, or if both references of a task are equal.

    Raises:
        BadCallError: `matrix` is not a square matrix of floating point numbers, or a reference does not fit it.
    """
    part = learnt_part(matrix)
    upper = validated_reference(independent, matrix, "independent")[: len(part)]
    return _ratio(part, upper, validated_reference(random, matrix, "random")[: len(part)])


def validated_joint(joint: Reference, matrix: Tensor) -> Tensor:
    """Return the accuracy of joint training, `(tasks,)` or `(tasks, tasks)`, with the matrix's dtype and device.

    Args:
        joint: As `forgetting_ratio` takes it.
        matrix: The whole accuracy matrix, `(tasks, tasks)`.

    Raises:
        BadCallError: It has another shape, or does not hold real numbers.
    """
    found = as_numbers(joint, "joint").to(matrix)
    if found.shape == matrix.shape:
        return found
    if found.ndim < 2:
        return validated_reference(found, matrix, "joint")
    tasks = len(matrix)
    raise BadCallError(
        f"Expected `joint` to be a number or to have shape ({tasks},) or ({tasks}, {tasks}), as the matrix has {tasks} "
        f"tasks, but got shape {tuple(found.shape)}."
    )


def _ratio(part: Tensor, upper: Tensor, lower: Tensor) -> Tensor:
    """Return the mean over the tasks learnt; NaN if both references of a task are equal."""
    if not len(part):
        return part.new_tensor(torch.nan)
    room = (upper - lower).masked_fill(upper == lower, torch.nan)
    return ((part[-1] - lower) / room).mean() - 1
