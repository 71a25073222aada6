"""Checks of the accuracy matrix and of the reference accuracies that metrics compare it with."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from fgadahat_hooks.errors import BadCallError

Reference = Tensor | Sequence[float] | float
"""Accuracies of another training run, one a task, or one number for all tasks."""


def learnt_part(matrix: Tensor) -> Tensor:
    """Return the rows and columns of the tasks learnt so far, `(T, T)`.

    `T` is the last task after which anything was measured. So every metric can be computed after each task, while later
    rows of the matrix are still NaN.

    Args:
        matrix: Accuracy `a[i, j]` on task j after learning task i, `(tasks, tasks)`, NaN where not measured.

    Raises:
        BadCallError: It is not a square matrix of floating point numbers.
    """
    if not isinstance(matrix, Tensor) or matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
        got = f"shape {tuple(matrix.shape)}" if isinstance(matrix, Tensor) else repr(matrix)
        raise BadCallError(f"Expected `matrix` to be a tensor of shape (tasks, tasks), but got {got}.")
    if not matrix.is_floating_point():
        raise BadCallError(f"Expected `matrix` to hold floating point numbers, but got {matrix.dtype}.")
    measured = (~matrix.isnan()).any(dim=1).nonzero()
    learnt = int(measured[-1]) + 1 if len(measured) else 0
    return matrix[:learnt, :learnt]


def validated_reference(value: Reference, matrix: Tensor, name: str) -> Tensor:
    """Return one accuracy a task, `(tasks,)`, with the matrix's dtype and device.

    Args:
        value: A tensor or sequence with one number a task, or one number for all tasks.
        matrix: The whole accuracy matrix, `(tasks, tasks)`.
        name: Name of the argument, for messages.

    Raises:
        BadCallError: It has another shape, or does not hold real numbers.
    """
    tasks = matrix.shape[0]
    found = as_numbers(value, name).to(matrix)
    if found.ndim == 0:
        return found.expand(tasks)
    if found.shape != (tasks,):
        raise BadCallError(
            f"Expected `{name}` to be a number or to have shape ({tasks},), one number a task of the matrix, but got "
            f"shape {tuple(found.shape)}."
        )
    return found


def as_numbers(value: Reference | Sequence[Sequence[float]], name: str) -> Tensor:
    """Return numbers as a tensor of the same shape.

    Args:
        value: A tensor, a number, or nested lists of numbers.
        name: Name of the argument, for messages.

    Raises:
        BadCallError: They are not real numbers, or lists of uneven lengths.
    """
    try:
        # float64, so that Python floats keep all digits until they take the matrix's dtype.
        found = value if isinstance(value, Tensor) else torch.tensor(value, dtype=torch.float64, device="cpu")
    except (TypeError, ValueError, RuntimeError):
        found = None
    if found is None or found.is_complex() or found.dtype == torch.bool:
        raise BadCallError(f"Expected `{name}` to be a number or a tensor of numbers, but got {value!r}.")
    return found
