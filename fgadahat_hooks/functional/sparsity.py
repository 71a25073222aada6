"""What share of the free units a task takes: the regularizer of the loss and the per-layer ratio of the rates."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from fgadahat_hooks.errors import BadCallError


def _ratio(part: Tensor, whole: Tensor) -> Tensor:
    """Return `part / whole`, and 0 where `whole` is 0, with a gradient that is finite in both cases."""
    positive = whole > 0
    return torch.where(positive, part / torch.where(positive, whole, 1), 0)


def _taken_of_free(mask: Tensor, cumulative: Tensor) -> tuple[Tensor, Tensor]:
    """Return `sum m (1 - M)` and `sum (1 - M)` of one layer."""
    free = 1 - cumulative.to(mask.dtype)
    return (mask * free).sum(), free.sum()


def _reused_of_used(mask: Tensor, cumulative: Tensor) -> tuple[Tensor, Tensor]:
    """Return `sum m M` and `sum M` of one layer."""
    used = cumulative.to(mask.dtype)
    return (mask * used).sum(), used.sum()


def _original(masks: Sequence[Tensor], cumulative: Sequence[Tensor], budget: float) -> Tensor:
    pairs = [_taken_of_free(m, c) for m, c in zip(masks, cumulative, strict=True)]
    taken = torch.stack([p for p, _ in pairs])
    if budget > 0:
        taken = (taken - taken.new_tensor([budget * m.numel() for m in masks])).clamp(min=0)
    return _ratio(taken.sum(), torch.stack([w for _, w in pairs]).sum())


def _cross(masks: Sequence[Tensor], cumulative: Sequence[Tensor], budget: float) -> Tensor:
    pairs = [_reused_of_used(m, c) for m, c in zip(masks, cumulative, strict=True)]
    used = torch.stack([w for _, w in pairs]).sum()
    reused = _ratio(torch.stack([p for p, _ in pairs]).sum(), used)
    # Before any task has ended there is nothing to reuse, hence nothing to penalise.
    unused = torch.where(used > 0, 1 - reused, 0)
    return (_original(masks, cumulative, budget) + unused) / 2


_MODES = {"original": _original, "cross": _cross}


def regularization(
    masks: Sequence[Tensor], cumulative: Sequence[Tensor], mode: str = "original", budget: float = 0.0
) -> Tensor:
    """Return the sparsity term `R` of the loss, a scalar in [0, 1], one ratio over all layers (HAT Eq. 5).

    - `original`: `R = sum_{l,i} m (1 - M) / sum_{l,i} (1 - M)`, 0 when nothing is free. No hidden lower bound on the
      number of free units.
    - `cross`: the mean of `original` and `1 - sum_{l,i} m M / sum_{l,i} M` (AdaHAT's first code), whose second part
      rewards the use of units that earlier tasks use; it is 0 before any task has ended.

    With a budget `b` (this library's own addition) the numerator of the first ratio is
    `sum_l max(0, sum_i m (1 - M) - b n_l)`, `n_l` units in layer `l`: the first `b n_l` units that a task takes of a
    layer cost nothing, and each further unit costs as much as in Eq. 5. `b = 0` is Eq. 5.

    The spec's factor is not included; the caller multiplies by it once.

    Args:
        masks: Soft masks `m^t` of the running task, `(units,)` each.
        cumulative: Masks `M = m^{<t}` of all earlier tasks, 0/1 or bool, in the same order.
        mode: `original` or `cross`.
        budget: Share of each layer's units that a task may take free of charge, 0 to 1.

    Raises:
        BadCallError: If `mode` is neither, no layer is given, or `budget` is not within 0 and 1.
    """
    if mode not in _MODES:
        raise BadCallError(f"Expected `mode` to be one of {list(_MODES)}, but got {mode!r}.")
    if not masks:
        raise BadCallError("Expected at least one mask, but got none.")
    if not 0 <= budget <= 1:
        raise BadCallError(f"Expected `budget` to be within 0 and 1, but got {budget!r}.")
    return _MODES[mode](masks, cumulative, budget)


def linearised_regularization(cumulative: Tensor, mode: str = "original") -> tuple[Tensor, Tensor]:
    """Return `b` and `w` with `R(m) = b + w . m`: without a budget the sparsity term is affine, one product a step.

    Args:
        cumulative: Masks of all earlier tasks over all units, concatenated, `(total units,)`.
        mode: `original` or `cross`.
    """
    with torch.enable_grad():
        zeros = torch.zeros_like(cumulative, requires_grad=True)
        at_zero = regularization([zeros], [cumulative], mode)
        (slope,) = torch.autograd.grad(at_zero, zeros)
    return at_zero.detach(), slope


def layer_sparsity(mask: Tensor, cumulative: Tensor) -> Tensor:
    """Return `R_l = sum_i m (1 - M) / sum_i (1 - M)` of one layer, a scalar (in AdaHAT Eq. 9 and FG-AdaHAT Eq. 3).

    Exact for layers of any size; 0 only when nothing is free.

    Args:
        mask: Mask `m^t` of the running task, `(units,)`.
        cumulative: Mask `M = m^{<t}` of all earlier tasks, `(units,)`, 0/1 or bool.
    """
    return _ratio(*_taken_of_free(mask, cumulative))
