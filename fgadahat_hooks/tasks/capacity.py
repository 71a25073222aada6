"""The network capacity: how much of the network may still move, as the mean of the adjustment rates in force."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from fgadahat_hooks.callbacks.gradient_adjust import GradientAdjustCallback
from fgadahat_hooks.gates.attached_model import AttachedModel
from fgadahat_hooks.gates.task_state import TaskState
from fgadahat_hooks.tasks.random_states import random_state, set_random_state
from fgadahat_hooks.tasks.sequence import TaskSequence


def adjustment_rates(sequence: TaskSequence, state: TaskState, *, running: bool) -> dict[str, Tensor]:
    """Return the rate of every gated weight and bias, by parameter name; empty where all of them are 1.

    Args:
        sequence: The attached model; the first `GradientAdjustCallback` among its callbacks determines the rates.
        state: The tasks that are finished.
        running: Whether a task is running, whose current gates count; else a next task that uses no unit yet.

    Raises:
        DetachedError: The session was detached, or a gated layer was replaced.
        NoTaskError: The model has not been traced yet.
    """
    found = [c for c in sequence.callbacks.items if isinstance(c, GradientAdjustCallback)]
    if not found:
        return {}
    sequence.attached.check_attached()
    if not sequence.graph.layers or not state.records:
        return {}
    context = sequence.attached.context(None, state)
    if not running:
        context.soft_masks = lambda: torch.zeros_like(context.cumulative)  # type: ignore[method-assign]
    return GradientAdjustCallback(found[0].spec).rates(context)


def network_capacity(rates: Mapping[str, Tensor]) -> float:
    """Return the mean of all rates (AdaHAT, section 4.1); 1 where there are none."""
    if not rates:
        return 1.0
    return float(sum(r.double().sum() for r in rates.values()) / sum(r.numel() for r in rates.values()))


def mean_rates(attached: AttachedModel, rates: Mapping[str, Tensor]) -> dict[str, float]:
    """Return the mean rate of each gated weight and bias, by parameter name; 1 where there are none."""
    if not rates:
        return dict.fromkeys((policy.name for policy in attached.policies if policy.role == "gated"), 1.0)
    return {name: float(rate.double().mean()) for name, rate in rates.items()}


def capacity_and_rates(sequence: TaskSequence, state: TaskState) -> tuple[float, dict[str, float]]:
    """Return capacity and mean rates as if these tasks were finished and none were running.

    The random state is restored: a random rate draws numbers.
    """
    before = random_state()
    try:
        rates = adjustment_rates(sequence, state, running=False)
        return network_capacity(rates), mean_rates(sequence.attached, rates)
    finally:
        set_random_state(before)
