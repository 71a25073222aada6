"""Adjustment rates: the factor in [0, 1] by which an update of a weight is scaled (HAT, AdaHAT, FG-AdaHAT).

All functions take one value a weight, computed by `aggregate` from the values of its two units, so each rate has the
shape of the weight (or one that broadcasts to it). For a bias the values are those of its own unit.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from fgadahat_hooks.functional.aggregate import aggregate


def _floating(values: Tensor) -> Tensor:
    """Return `values`, a bool mask converted to the default floating-point type."""
    return values if values.is_floating_point() else values.to(torch.get_default_dtype())


# --- FG-AdaHAT ---------------------------------------------------------------------------------------------------


def fg_adahat_rate(importance: Tensor, factor: Tensor | float, alpha: float) -> Tensor:
    """Return `a = alpha / (c A + alpha)` (FG-AdaHAT Eq. 2).

    Computed as `1 / (c A / alpha + 1)`: exactly 1 where the importance is 0, whatever alpha is. (PyTorch divides a
    number by a tensor through the reciprocal, so `alpha / (0 + alpha)` may differ from 1 by a rounding error.)

    Args:
        importance: `A = Agg(I^{<t}_{l,i}, I^{<t}_{l-1,j})` >= 0 of each weight.
        factor: `c` of a scheduler, a scalar or one value a weight.
        alpha: Adjustment intensity > 0.
    """
    return (importance * (factor / alpha)).add_(1).reciprocal_()


def filter_by_cumulative_mask(importance: Tensor, protected: Tensor) -> Tensor:
    """Return the importance of each weight with 0 where no earlier task uses it (FG-AdaHAT, option).

    Args:
        importance: `A` of each weight.
        protected: `min(m^{<t}_{l,i}, m^{<t}_{l-1,j})` of each weight.
    """
    return importance * protected


class Scheduler(Protocol):
    """Computes the factor `c` that multiplies the importance (FG-AdaHAT Eq. 3)."""

    def __call__(
        self, *, sparsity: Tensor, task: int, count: Tensor, base_linear: float, base_mask_sparsity_reg: float
    ) -> Tensor:
        """Return `c`, a scalar or one value a weight.

        Args:
            sparsity: `R_l` of `layer_sparsity`, a scalar.
            task: Number `t` of the running task, counted from 1.
            count: `min(m^{<t,sum}_{l,i}, m^{<t,sum}_{l-1,j})` of each weight: how many tasks use it.
            base_linear: `b_L` >= 0.
            base_mask_sparsity_reg: `b_R` > 0.
        """
        ...


def linear_sparsity_reg(
    *, sparsity: Tensor, task: int, count: Tensor, base_linear: float, base_mask_sparsity_reg: float
) -> Tensor:
    """Return `c^t_l = (t + b_L) (R_l + b_R)`, a scalar (FG-AdaHAT Eq. 3). `count` is not used."""
    return (task + base_linear) * (sparsity + base_mask_sparsity_reg)


def sparsity_reg(
    *, sparsity: Tensor, task: int, count: Tensor, base_linear: float, base_mask_sparsity_reg: float
) -> Tensor:
    """Return `c^t_l = R_l + b_R`, a scalar (FG-AdaHAT Eq. 3 without the linear part)."""
    return sparsity + base_mask_sparsity_reg


def summative_mask_sparsity_reg(
    *, sparsity: Tensor, task: int, count: Tensor, base_linear: float, base_mask_sparsity_reg: float
) -> Tensor:
    """Return `c^t_{l,ij} = (count + b_L) (R_l + b_R)`, one value a weight (FG-AdaHAT Eq. 3)."""
    return (_floating(count) + base_linear) * (sparsity + base_mask_sparsity_reg)


SCHEDULERS: dict[str, Scheduler] = {
    "linear_sparsity_reg": linear_sparsity_reg,
    "sparsity_reg": sparsity_reg,
    "summative_mask_sparsity_reg": summative_mask_sparsity_reg,
}
"""The three importance schedulers by name, one signature for all."""


# --- AdaHAT ------------------------------------------------------------------------------------------------------


def adahat_rate(count: Tensor, sparsity: Tensor, alpha: float, epsilon: float) -> Tensor:
    """Return `a* = r / (count + r)` with `r = alpha / (R_l + eps)` (AdaHAT Eq. 9).

    Computed as `1 / ((R_l + eps) count / alpha + 1)`: exactly 1 where no task uses the weight.

    Args:
        count: `min(m^{<t,sum}_{l,i}, m^{<t,sum}_{l-1,j})` of each weight: how many tasks use it.
        sparsity: `R_l` of `layer_sparsity`, a scalar.
        alpha: Adjustment intensity > 0.
        epsilon: `eps` > 0, the strength of the protection when the task takes no free unit.
    """
    return 1 / ((sparsity + epsilon) * count / alpha + 1)


def adahat_no_sum_rate(count: Tensor, finished: int, sparsity: Tensor, alpha: float, epsilon: float) -> Tensor:
    """Return AdaHAT's rate without the count of tasks (AdaHAT Sec. 4, ablation).

    A weight that any earlier task uses counts as used by all of them; a weight that no task uses stays free.

    Args:
        count: How many tasks use each weight; only whether it is 0 matters.
        finished: Number of finished tasks, which replaces the count.
        sparsity: `R_l`, a scalar.
        alpha: Adjustment intensity > 0.
        epsilon: `eps` > 0.
    """
    constant = (count > 0).to(sparsity.dtype) * finished
    return adahat_rate(constant, sparsity, alpha, epsilon)


def adahat_no_reg_rate(count: Tensor, alpha: float, epsilon: float) -> Tensor:
    """Return AdaHAT's rate with `r = alpha / eps`, i.e. with `R_l = 0` (AdaHAT Sec. 4, ablation)."""
    return 1 / (epsilon * count / alpha + 1)


# --- HAT and its baselines ---------------------------------------------------------------------------------------


def hat_rate(protected: Tensor) -> Tensor:
    """Return `1 - min(m^{<t}_{l,i}, m^{<t}_{l-1,j})` (HAT Eq. 2): 0 where an earlier task uses the weight.

    Args:
        protected: The aggregated cumulative mask of each weight, 0/1 or bool.
    """
    return 1 - _floating(protected)


def hat_const_alpha_rate(protected: Tensor, alpha: float) -> Tensor:
    """Return `alpha` where an earlier task uses the weight, 1 elsewhere (AdaHAT Sec. 4, baseline)."""
    return hat_rate(protected) + alpha * protected


def hat_random_rate(protected: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Return U(0, 1) where an earlier task uses the weight, 1 elsewhere (AdaHAT Sec. 4, baseline).

    Args:
        protected: The aggregated cumulative mask of each weight.
        generator: Source of the random numbers, on the device of `protected`; every call draws new ones.
    """
    free = hat_rate(protected)
    drawn = torch.rand(free.shape, generator=generator, dtype=free.dtype, device=free.device)
    return free + drawn * protected


def hat_const_1_rate(protected: Tensor) -> Tensor:
    """Return 1 everywhere: no protection at all (AdaHAT Sec. 4, baseline)."""
    return torch.ones_like(_floating(protected))


# --- an arbitrary mask -------------------------------------------------------------------------------------------


def clip_by_mask(grad: Tensor, own: Tensor, inputs: Tensor | None, mode: str) -> Tensor:
    """Return a gradient times a unit mask aggregated to weights: HAT Eq. 2 with an arbitrary mask.

    Args:
        grad: Gradient of a weight or bias.
        own: Factor of each own unit, viewed so that it broadcasts over `grad`.
        inputs: Factor of each input, likewise; absent for a bias or a first layer.
        mode: Aggregation `min`, `max` or `mean`.
    """
    return grad * aggregate(own, inputs, mode)
