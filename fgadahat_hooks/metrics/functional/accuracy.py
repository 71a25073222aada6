"""Mean accuracies: over all tasks, and of each task right after it was learnt."""

from __future__ import annotations

import torch
from torch import Tensor

from fgadahat_hooks.metrics.functional.matrix import learnt_part


def average_accuracy(matrix: Tensor) -> Tensor:
    """Return `AA_T = (1/T) sum_{j<=T} a[T, j]`, the mean accuracy after the last task (Lopez-Paz and Ranzato 2017).

    Higher is better.

    Args:
        matrix: Accuracy `a[i, j]` on task j after learning task i, `(tasks, tasks)`, NaN where not measured. `T` is the
            last task after which anything was measured.

    Returns:
        A scalar; NaN if an entry of row `T` up to column `T` is missing.

    Raises:
        BadCallError: `matrix` is not a square matrix of floating point numbers.
    """
    return learnt_part(matrix)[-1:].mean()


def average_incremental_accuracy(matrix: Tensor) -> Tensor:
    """Return `(1/T) sum_{k<=T} AA_k`, the mean of the average accuracies after each task (Rebuffi et al. 2017, iCaRL).

    Higher is better.

    Args:
        matrix: Accuracy `a[i, j]` on task j after learning task i, `(tasks, tasks)`, NaN where not measured. `T` is the
            last task after which anything was measured.

    Returns:
        A scalar; NaN if an entry on or below the diagonal is missing.

    Raises:
        BadCallError: `matrix` is not a square matrix of floating point numbers.
    """
    part = learnt_part(matrix)
    tasks = torch.arange(1, len(part) + 1, dtype=part.dtype, device=part.device)
    return (part.tril().sum(dim=1) / tasks).mean()


def learning_accuracy(matrix: Tensor) -> Tensor:
    """Return `LA = (1/T) sum_{j<=T} a[j, j]`, the mean accuracy on each task right after it (Riemer et al. 2019).

    Higher is better. With it, `AA_T = LA + (T-1)/T BWT`.

    Args:
        matrix: Accuracy `a[i, j]` on task j after learning task i, `(tasks, tasks)`, NaN where not measured. `T` is the
            last task after which anything was measured.

    Returns:
        A scalar; NaN if an entry of the diagonal is missing.

    Raises:
        BadCallError: `matrix` is not a square matrix of floating point numbers.
    """
    return learnt_part(matrix).diagonal().mean()
