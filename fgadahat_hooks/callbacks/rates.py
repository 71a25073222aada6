"""Adjustment rates: which equation of `functional.adjust` a mode of the spec stands for.

To add a mode: its block in `spec.callback_specs`, its equation in `functional.adjust`, and a line in `RATES`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor

from fgadahat_hooks.functional import adjust


class PriorValues(Protocol):
    """What a rate depends on from earlier tasks: one value a weight (`PriorUse`) or a unit (`UnitPriorUse`)."""

    finished: int
    task: int

    @property
    def protected(self) -> Tensor:
        """Whether an earlier task uses it."""

    @property
    def count(self) -> Tensor:
        """How many earlier tasks use it."""

    @property
    def importance(self) -> Tensor:
        """How important it is to them."""


Rate = Callable[[Any, PriorValues, Tensor, torch.Generator | None], Tensor]
"""`(spec, prior, sparsity, generator) -> Tensor`, the rate of each weight or unit."""


def _fg_adahat(spec: Any, prior: PriorValues, sparsity: Tensor, _: torch.Generator | None) -> Tensor:
    factor = adjust.SCHEDULERS[spec.scheduler](
        sparsity=sparsity,
        task=prior.task,
        count=prior.count,
        base_linear=spec.base_linear,
        base_mask_sparsity_reg=spec.base_mask_sparsity_reg,
    )
    importance = prior.importance
    if spec.filter_by_cumulative_mask:
        importance = adjust.filter_by_cumulative_mask(importance, prior.protected)
    return adjust.fg_adahat_rate(importance, factor, spec.intensity)


def _adahat(spec: Any, prior: PriorValues, sparsity: Tensor, _: torch.Generator | None) -> Tensor:
    return adjust.adahat_rate(prior.count, sparsity, spec.intensity, spec.epsilon)


def _adahat_no_sum(spec: Any, prior: PriorValues, sparsity: Tensor, _: torch.Generator | None) -> Tensor:
    return adjust.adahat_no_sum_rate(prior.count, prior.finished, sparsity, spec.intensity, spec.epsilon)


def _adahat_no_reg(spec: Any, prior: PriorValues, _: Tensor, __: torch.Generator | None) -> Tensor:
    return adjust.adahat_no_reg_rate(prior.count, spec.intensity, spec.epsilon)


def _hat(_: Any, prior: PriorValues, __: Tensor, ___: torch.Generator | None) -> Tensor:
    return adjust.hat_rate(prior.protected)


def _hat_random(_: Any, prior: PriorValues, __: Tensor, generator: torch.Generator | None) -> Tensor:
    return adjust.hat_random_rate(prior.protected, generator)


def _hat_const_alpha(spec: Any, prior: PriorValues, _: Tensor, __: torch.Generator | None) -> Tensor:
    return adjust.hat_const_alpha_rate(prior.protected, spec.alpha)


def _hat_const_1(_: Any, prior: PriorValues, __: Tensor, ___: torch.Generator | None) -> Tensor:
    return adjust.hat_const_1_rate(prior.protected)


RATES: dict[str, Rate] = {
    "fg_adahat": _fg_adahat,
    "adahat": _adahat,
    "adahat_no_sum": _adahat_no_sum,
    "adahat_no_reg": _adahat_no_reg,
    "hat": _hat,
    "hat_random": _hat_random,
    "hat_const_alpha": _hat_const_alpha,
    "hat_const_1": _hat_const_1,
}
"""The rate of each mode."""

CONSTANT = frozenset({"adahat_no_reg", "hat", "hat_const_alpha", "hat_const_1"})
"""Modes whose rates stay constant during a task."""


def has_unit_rates(spec: Any) -> bool:
    """Return whether rates can be computed per unit: they fall with one value, aggregated by `min` or `max`."""
    if spec.mode == "fg_adahat":
        scalar = spec.scheduler != "summative_mask_sparsity_reg"
        return scalar and not spec.filter_by_cumulative_mask and spec.aggregation in ("min", "max")
    return spec.mode in ("adahat", "adahat_no_sum")
