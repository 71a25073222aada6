"""Accuracy lost on earlier tasks, and accuracy that later tasks no longer reach."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from fgadahat_hooks.errors import BadCallError
from fgadahat_hooks.metrics.functional.matrix import Reference, learnt_part, validated_reference

Reduction = Literal["last", "mean", "none"]
"""What to return of one value a task: that of the last task learnt, the mean, or all values."""


def forgetting(matrix: Tensor) -> Tensor:
    """Return `F = 1/(T-1) sum_{j<T} (max_{l<T} a[l, j] - a[T, j])` (Chaudhry et al. 2018, RWalk, Eq. 3).

    Above 0 is bad. `F >= -BWT`, and equal if each task was at its best when it was learnt.

    Args:
        matrix: Accuracy `a[i, j]` on task j after learning task i, `(tasks, tasks)`, NaN where not measured. `T` is the
            last task after which anything was measured. Measured entries above the diagonal count in the maximum, as in
            the paper.

    Returns:
        A scalar; NaN for `T < 2`, or if an entry on or below the diagonal is missing, columns below `T`.

    Raises:
        BadCallError: `matrix` is not a square matrix of floating point numbers.
    """
    part = learnt_part(matrix)
    if len(part) < 2:
        return part.new_tensor(torch.nan)
    before = part[:-1, :-1]
    not_needed = torch.ones_like(before, dtype=torch.bool).triu(1) & before.isnan()
    best = before.masked_fill(not_needed, -torch.inf).amax(dim=0)
    return (best - part[-1, :-1]).mean()


def intransigence(matrix: Tensor, joint: Reference, reduction: Reduction = "last") -> Tensor:
    """Return `I_k = a*_k - a[k, k]`: how much worse a task is learnt than in joint training (Chaudhry et al. 2018).

    Above 0 is bad.

    Args:
        matrix: Accuracy `a[i, j]` on task j after learning task i, `(tasks, tasks)`, NaN where not measured. `T` is the
            last task after which anything was measured.
        joint: Accuracy `a*_k` on task k of a model that learnt tasks 1 to k together, `(tasks,)`, or a number for all
            tasks.
        reduction: `last` gives `I_T`, which the paper reports; `mean` the mean over `k <= T`; `none` every `I_k`.

    Returns:
        A scalar, or `(T,)` for `none`. NaN where an entry of the diagonal or its reference is missing.

    Raises:
        BadCallError: `matrix` is not a square matrix of floating point numbers, `joint` does not fit it, or
            `reduction` is none of these.
    """
    part = learnt_part(matrix)
    values = validated_reference(joint, matrix, "joint")[: len(part)] - part.diagonal()
    if check_reduction(reduction) == "none":
        return values
    return (values if reduction == "mean" else values[-1:]).mean()


def check_reduction(reduction: Reduction) -> Reduction:
    """Return the reduction if it is valid.

    Raises:
        BadCallError: It is none of `last`, `mean` and `none`.
    """
    if reduction not in ("last", "mean", "none"):
        raise BadCallError(f"Expected `reduction` to be one of ['last', 'mean', 'none'], but got {reduction!r}.")
    return reduction
