"""The equations of HAT, AdaHAT and FG-AdaHAT as pure functions on tensors.

Nothing here knows a model, a hook, a spec or a task. Shapes are per layer: `(units,)` for what belongs to a unit, the
weight's shape (or one that broadcasts to it) for what belongs to a weight. No function reads a value back to the host.
To add an equation, write it in the file of its quantity. Schedulers, aggregations, inits and strategies are dicts by
name; a spec accepts a new one once its name is in the `Literal` or block in `spec/callback_specs.py`.
"""

from __future__ import annotations

from fgadahat_hooks.functional.adjust import (
    SCHEDULERS,
    adahat_no_reg_rate,
    adahat_no_sum_rate,
    adahat_rate,
    clip_by_mask,
    fg_adahat_rate,
    filter_by_cumulative_mask,
    hat_const_1_rate,
    hat_const_alpha_rate,
    hat_random_rate,
    hat_rate,
)
from fgadahat_hooks.functional.aggregate import AGGREGATIONS, aggregate
from fgadahat_hooks.functional.mask import (
    INITS,
    anneal,
    annealed_gate,
    compensate,
    hard_mask,
    initial_embedding,
    soft_mask,
)
from fgadahat_hooks.functional.scale import finish_importance, min_max
from fgadahat_hooks.functional.sparsity import layer_sparsity, regularization
from fgadahat_hooks.functional.summation import STRATEGIES

__all__ = [
    "AGGREGATIONS",
    "INITS",
    "SCHEDULERS",
    "STRATEGIES",
    "adahat_no_reg_rate",
    "adahat_no_sum_rate",
    "adahat_rate",
    "aggregate",
    "anneal",
    "annealed_gate",
    "clip_by_mask",
    "compensate",
    "fg_adahat_rate",
    "filter_by_cumulative_mask",
    "finish_importance",
    "hard_mask",
    "hat_const_1_rate",
    "hat_const_alpha_rate",
    "hat_random_rate",
    "hat_rate",
    "initial_embedding",
    "layer_sparsity",
    "min_max",
    "regularization",
    "soft_mask",
]
