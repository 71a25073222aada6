"""CLArena's arguments and their places in a spec: data without behaviour.

Names and defaults are those of the constructors of `HAT`, `AdaHAT` and `FGAdaHAT` in `clarena.cl_algorithms`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

REQUIRED: Any = object()
"""Marks an argument without a default."""


class Argument(NamedTuple):
    """One argument of a CLArena class.

    Attributes:
        spec_path: Where its value goes in a spec, `block.key`.
        default: CLArena's default; `REQUIRED` if it has none.
        requires: `(path, value)` of the choice under which the value is used; always if empty.
        choices: Values that the class accepts, if fewer than a spec accepts.
    """

    spec_path: str
    default: Any = REQUIRED
    requires: tuple[str, str] | tuple[()] = ()
    choices: tuple[str, ...] = ()


_GATES: Mapping[str, Argument] = {
    "s_max": Argument("gates.s_max"),
    "clamp_threshold": Argument("gates.clamp_threshold"),
    "mask_sparsity_reg_factor": Argument("regularization.factor"),
    "mask_sparsity_reg_mode": Argument("regularization.mode", "original"),
    "task_embedding_init_mode": Argument("gates.init", "N01"),
}
_STRATEGY = "importance_summing_strategy"
_HAT_MODES = ("hat", "hat_random", "hat_const_alpha", "hat_const_1")
_ADAHAT_MODES = ("adahat", "adahat_no_sum", "adahat_no_reg")

ALGORITHMS: Mapping[str, Mapping[str, Argument]] = {
    "HAT": {
        "adjustment_mode": Argument("adjustment.mode", choices=_HAT_MODES),
        "alpha": Argument("adjustment.alpha", None, ("adjustment.mode", "hat_const_alpha")),
        **_GATES,
    },
    "AdaHAT": {
        "adjustment_mode": Argument("adjustment.mode", choices=_ADAHAT_MODES),
        "adjustment_intensity": Argument("adjustment.intensity"),
        "epsilon": Argument("adjustment.epsilon", 0.1),
        **_GATES,
    },
    "FGAdaHAT": {
        "adjustment_intensity": Argument("adjustment.intensity"),
        "importance_type": Argument("importance.type"),
        _STRATEGY: Argument("summation.strategy"),
        f"{_STRATEGY}_linear_step": Argument("summation.linear_step", None, ("summation.strategy", "linear_decrease")),
        f"{_STRATEGY}_exponential_rate": Argument(
            "summation.exponential_rate", None, ("summation.strategy", "exponential_decrease")
        ),
        f"{_STRATEGY}_log_base": Argument("summation.log_base", None, ("summation.strategy", "log_decrease")),
        "importance_scheduler_type": Argument("adjustment.scheduler"),
        "neuron_to_weight_importance_aggregation_mode": Argument("adjustment.aggregation"),
        "base_importance": Argument("adjustment.base_importance", 0.01),
        "base_mask_sparsity_reg": Argument("adjustment.base_mask_sparsity_reg", 0.1),
        "base_linear": Argument("adjustment.base_linear", 10.0),
        "filter_by_cumulative_mask": Argument("adjustment.filter_by_cumulative_mask", False),
        "filter_unmasked_importance": Argument("importance.filter_unmasked", True),
        "step_multiply_training_mask": Argument("importance.multiply_training_mask", True),
        **_GATES,
    },
}
"""Each algorithm's arguments."""

FIXED_VALUES: Mapping[str, Mapping[str, Any]] = {
    "HAT": {"adjustment.apply_to": "gradient", "gates.annealing": "epoch"},
    "AdaHAT": {"adjustment.apply_to": "gradient", "gates.annealing": "epoch"},
    "FGAdaHAT": {"adjustment.mode": "fg_adahat", "adjustment.apply_to": "gradient", "gates.annealing": "epoch"},
}
"""Values that follow from the class itself, not from an argument."""

HEADS: Mapping[str, str] = {"HeadsTIL": "per_task", "HeadDIL": "shared", "HeadsDIL": "shared"}
"""`heads.mode` by the class of `heads`."""

NOT_IN_SPEC: Mapping[str, str] = {
    "backbone": "your own model, passed to fgadahat_hooks.attach(model, spec)",
    "optimizer": "your own optimizer: task.protect(optimizer)",
    "lr_scheduler": "your own loop",
    "non_algorithmic_hparams": "nothing here depends on it",
}
"""Arguments that have no place in a spec, and where they go instead."""

HYDRA = ("_args_", "_convert_", "_partial_", "_recursive_")
"""Keys of Hydra, which are not arguments of the class."""

DIFFERENCES: tuple[tuple[tuple[str, ...], str], ...] = (
    (
        ("HAT", "AdaHAT", "FGAdaHAT"),
        "adjustment.apply_to: gradient scales gradients, as CLArena and the papers do; momentum and weight decay then "
        "still move protected weights. With apply_to: update the optimizer's step itself is scaled: mode hat keeps "
        "finished tasks bit for bit, and soft rates mean the same under every optimizer, but have to be chosen anew "
        "(the defaults are 3e-2 and 1e-3 there).",
    ),
    (
        ("HAT", "AdaHAT", "FGAdaHAT"),
        "The gate scale goes from 1/s_max to s_max over an epoch, HAT Eq. 3; CLArena's is negative on the first batch "
        "and never reaches s_max.",
    ),
    (
        ("HAT", "AdaHAT", "FGAdaHAT"),
        "gates.embedding_clamp keeps task embeddings within [-6, 6], as HAT's paper and code do; CLArena does not.",
    ),
    (
        ("HAT", "AdaHAT", "FGAdaHAT"),
        "gates.targets: all takes in the convolutions of shortcuts, and norms have a copy for each task; CLArena "
        "leaves both to be changed by every task.",
    ),
    (
        ("AdaHAT", "FGAdaHAT"),
        "The sparsity that enters the rate is exact in small layers too; CLArena sets it to 0 where 10 units or fewer "
        "are free.",
    ),
    (
        ("FGAdaHAT",),
        "importance.gradient: raw reads gradients before they are adjusted; CLArena reads them after. Write adjusted "
        "for that.",
    ),
    (
        ("FGAdaHAT",),
        "summation strategies that decrease sum over all finished tasks, as documented; CLArena counts the latest "
        "alone.",
    ),
)
"""Deliberate differences from CLArena, with the algorithms that they concern."""
