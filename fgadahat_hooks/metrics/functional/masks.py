"""How many units the tasks use, and how many they share."""

from __future__ import annotations

import torch
from torch import Tensor

from fgadahat_hooks.errors import BadCallError


def mask_use(masks: Tensor) -> Tensor:
    """Return `mean_i m^t_i`, the fraction of units that each task uses, `(tasks,)` (Serrà et al. 2018, HAT, Sec. 4.5).

    Args:
        masks: Binary masks `m^t`, `(tasks, units)`, in the order of learning.

    Returns:
        `(tasks,)`; NaN without units.

    Raises:
        BadCallError: `masks` has another number of dimensions.
    """
    return _binary(masks).mean(dim=1)


def cumulative_mask_use(masks: Tensor) -> Tensor:
    """Return `mean_i max_{tau<=t} m^tau_i`, the fraction used by the first t tasks, `(tasks,)` (HAT, Fig. 5).

    Args:
        masks: Binary masks `m^t`, `(tasks, units)`, in the order of learning.

    Returns:
        `(tasks,)`, which never falls; NaN without units.

    Raises:
        BadCallError: `masks` has another number of dimensions.
    """
    return _binary(masks).cummax(dim=0).values.mean(dim=1)


def mask_overlap(masks: Tensor) -> Tensor:
    """Return `sum_i m^t_i m^tau_i / sum_i m^t_i`, `(tasks, tasks)` (Serrà et al. 2018, HAT, Fig. 6).

    Entry `[t, tau]` is the fraction of task t's units that task tau uses too. 1 on the diagonal; not symmetric.

    Args:
        masks: Binary masks `m^t`, `(tasks, units)`, in the order of learning.

    Returns:
        `(tasks, tasks)`; NaN in the row of a task that uses no unit.

    Raises:
        BadCallError: `masks` has another number of dimensions.
    """
    binary = _binary(masks)
    return binary @ binary.T / binary.sum(dim=1, keepdim=True)


def free_unit_fraction(masks: Tensor) -> Tensor:
    """Return `1 - mean_i max_t m^t_i`, the fraction of units that no task uses.

    Args:
        masks: Binary masks `m^t`, `(tasks, units)`, in any order.

    Returns:
        A scalar, 1 without tasks; NaN without units.

    Raises:
        BadCallError: `masks` has another number of dimensions.
    """
    binary = _binary(masks)
    return (binary.sum(dim=0) == 0).to(binary).mean()


def _binary(masks: Tensor) -> Tensor:
    """Return the masks as 0 and 1 in the default float dtype."""
    if not isinstance(masks, Tensor) or masks.ndim != 2:
        got = f"shape {tuple(masks.shape)}" if isinstance(masks, Tensor) else repr(masks)
        raise BadCallError(f"Expected `masks` to be a tensor of shape (tasks, units), but got {got}.")
    return (masks != 0).to(torch.get_default_dtype())
