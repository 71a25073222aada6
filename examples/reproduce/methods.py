"""The methods, with the settings that validation chose for each; the option `--tune` repeats the search."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from examples.reproduce.recipe import Job, Recipe
from examples.reproduce.streams import STREAMS

MEASURES = {
    "icu": "input_weight_abs_sum_x_activation_abs",
    "cu": "output_weight_abs_sum_x_activation_abs",
    "ig": "input_weight_gradient_abs_sum",
    "afi": "input_weight_gradient_square_sum_x_activation_abs",
    "activation": "activation_abs",
    "gxa": "gradient_x_activation_abs",
    "ii": "internal_influence_abs",
    "deeplift": "deeplift_abs",
}
"""Eight measures by the short names the tables use; the last three are attributions."""

ATTRIBUTIONS = {"gxa", "ii", "deeplift"}


def fg(measure: str, **adjustment: Any) -> dict[str, Any]:
    """Return the blocks of FG-AdaHAT with a measure; attributions look at every fourth step."""
    importance: dict[str, Any] = {"type": MEASURES[measure]}
    if measure in ATTRIBUTIONS:
        importance["every_n_steps"] = 4
    return {"importance": importance, "adjustment": {"mode": "fg_adahat", "base_importance": 1e-8, **adjustment}}


# As published: one learning rate for weights and embeddings, Adam 1e-3, s_max 400, c = 0.1, rates on the gradient.
PUBLISHED = Recipe(lr=1e-3, gate_lr=1e-3, spec={"gates": {"s_max": 400.0}, "regularization": {"factor": 0.1}})

# The published forms, their training settings and intensities chosen on validation.
TUNED = PUBLISHED.but(lr=5e-3, gate_lr=0.05, spec={"regularization": {"factor": 2.5}})

# As published, under plain SGD, where scaling the gradient and scaling the update are the same thing.
SGD = Recipe(lr=0.1, gate_lr=0.1, optimizer="sgd", spec={"gates": {"s_max": 400.0}, "regularization": {"factor": 0.1}})

# Learnt gates with a budget, the presets of earlier versions: rates on the update, gates that stay soft for longer.
LIBRARY = Recipe(
    lr=8e-3,
    gate_lr=0.25,
    schedule="half",
    spec={"gates": {"s_max": 400.0, "annealing_power": 2.0}, "regularization": {"factor": 1.5, "budget": 0.1}},
)

PLASTICITY = {"rescale": True, "learning_rates": "by_share", "norm_statistics": "measured"}

BY_SHARE = {"gates": {"choose": "share", "tasks": 10}, "regularization": {"factor": 0.0}}

# Units by share without gains and biases of a task, as the presets were before.
NO_GAINS = Recipe(
    lr=5e-3,
    schedule="linear",
    spec={**BY_SHARE, "plasticity": {**PLASTICITY, "max_step": 0.2}, "rest": "per_task"},
)

# Units by share, today's presets.
SHARE = NO_GAINS.but(lr=2e-3, spec={"gates": {"gains": "without_norms"}})

# Without gains, and with half the limit of a raised learning rate, as the presets had it still earlier.
SMALL_STEP = Recipe(lr=2e-3, schedule="linear", spec={**BY_SHARE, "plasticity": {**PLASTICITY, "max_step": 0.1}})

GRADIENT = {"apply_to": "gradient"}

METHODS: dict[str, Recipe] = {
    "finetune": Recipe("finetune", lr=1e-3),
    "independent": Recipe("independent", lr=5e-3, schedule="linear"),
    "joint": Recipe("joint", lr=2e-3, schedule="linear"),
    "independent_norm": Recipe("independent", lr=2e-3, schedule="linear", norm=True),
    "independent_narrow": Recipe("independent", lr=5e-3, width=0.1),
    "frozen": Recipe("frozen", lr=5e-2, schedule="linear"),
    "hat_share": SHARE.but(spec={"adjustment": {"mode": "hat"}}),
    "adahat_share": SHARE.but(spec={"adjustment": {"mode": "adahat", "intensity": 1e-3, "epsilon": 0.1}}),
    "fg_icu_share": SHARE.but(spec=fg("icu", intensity=3e-2)),
    "hat_share_no_gains": NO_GAINS.but(spec={"adjustment": {"mode": "hat"}}),
    "adahat_share_no_gains": NO_GAINS.but(spec={"adjustment": {"mode": "adahat", "intensity": 1e-3, "epsilon": 0.1}}),
    "fg_icu_share_no_gains": NO_GAINS.but(spec=fg("icu", intensity=3e-2)),
    "hat_share_small_step": SMALL_STEP.but(spec={"adjustment": {"mode": "hat"}}),
    "hat_share_norm": SMALL_STEP.but(norm=True, spec={"adjustment": {"mode": "hat"}}),
    "hat_learnt_rates": LIBRARY.but(
        lr=5e-3, spec={"adjustment": {"mode": "hat"}, "plasticity": {**PLASTICITY, "max_step": 0.1}}
    ),
    "hat_published": PUBLISHED.but(spec={"adjustment": {"mode": "hat"}}),
    "adahat_published": PUBLISHED.but(spec={"adjustment": {"mode": "adahat", "intensity": 1e-6, **GRADIENT}}),
    "fg_afi_published": PUBLISHED.but(spec=fg("afi", intensity=1.5e-7, base_linear=5.0, **GRADIENT)),
    "hat": TUNED.but(spec={"adjustment": {"mode": "hat"}}),
    "hat_const_alpha": TUNED.but(spec={"adjustment": {"mode": "hat_const_alpha", "alpha": 1e-8, **GRADIENT}}),
    "adahat": TUNED.but(schedule="half", spec={"adjustment": {"mode": "adahat", "intensity": 1e-7, **GRADIENT}}),
    "adahat_no_sum": TUNED.but(
        schedule="half", spec={"adjustment": {"mode": "adahat_no_sum", "intensity": 1e-8, **GRADIENT}}
    ),
    "adahat_no_reg": TUNED.but(
        schedule="half", spec={"adjustment": {"mode": "adahat_no_reg", "intensity": 1e-8, **GRADIENT}}
    ),
    "fg_icu": TUNED.but(schedule="half", spec=fg("icu", intensity=1e-6, **GRADIENT)),
    "hat_sgd": SGD.but(spec={"adjustment": {"mode": "hat"}}),
    "adahat_sgd": SGD.but(spec={"adjustment": {"mode": "adahat", "intensity": 3e-2, **GRADIENT}}),
    "fg_icu_sgd": SGD.but(spec=fg("icu", intensity=3e-2, **GRADIENT)),
    "hat_budget": LIBRARY.but(
        lr=5e-3, spec={"gates": {"s_max": 100.0, "annealing_power": 1.0}, "adjustment": {"mode": "hat"}}
    ),
    "hat_preset": LIBRARY.but(lr=5e-3, spec={"adjustment": {"mode": "hat"}}),
    "adahat_update": LIBRARY.but(spec={"adjustment": {"mode": "adahat", "intensity": 1e-3}}),
    "const_update": LIBRARY.but(spec={"adjustment": {"mode": "hat_const_alpha", "alpha": 0.01}}),
    "hat_room": LIBRARY.but(lr=5e-3, spec={"adjustment": {"mode": "hat"}}),
    "fg_icu_room": LIBRARY.but(spec=fg("icu", intensity=3e-2)),
    **{f"fg_{name}_update": LIBRARY.but(spec=fg(name, intensity=3e-2)) for name in MEASURES},
}
"""The settings for stream A; `FOR_STREAM` has what other streams change, `for_tasks` what their length does."""

FOR_STREAM: dict[str, Mapping[str, dict[str, Any]]] = {
    "S": {
        "adahat": {"spec": {"adjustment": {"intensity": 1e-8}}},
        "fg_icu": {"schedule": "constant"},
        "independent": {"lr": 5e-3},
        "hat_share_small_step": {"lr": 5e-3},
        "hat_preset": {"lr": 8e-3},
        "hat_room": {"lr": 8e-3, "spec": {"regularization": {"factor": 0.75}}},
        "fg_icu_room": {"spec": {"adjustment": {"intensity": 1e-3}}},
        "fg_icu_sgd": {"spec": {"adjustment": {"intensity": 1e-1}}},
    },
}
"""By stream and method, what differs from `METHODS`."""

SEEDS = {"S": 5, "A": 5, "B": 5, "C": 5, "D": 1}
"""Seeds of a whole grid."""

SHARES = (
    "hat_share",
    "adahat_share",
    "fg_icu_share",
    "hat_share_no_gains",
    "hat_share_small_step",
    "hat_learnt_rates",
)
YARDSTICKS = ("frozen", "independent_narrow")
WITH_NORMS = ("independent_norm", "hat_share_norm")
MAIN = ("finetune", "independent", "hat", "adahat", "fg_icu", "hat_preset", "fg_icu_update")
ROOM = ("hat_room", "fg_icu_room")
AS_PUBLISHED = ("hat_published", "adahat_published", "fg_afi_published")
UNDER_SGD = ("hat_sgd", "adahat_sgd", "fg_icu_sgd")
CHOSEN: dict[str, Sequence[str]] = {
    "S": (*SHARES, *YARDSTICKS, *WITH_NORMS, *MAIN, *ROOM, *AS_PUBLISHED, *UNDER_SGD),
    "A": tuple(name for name in METHODS if name not in (*ROOM, *UNDER_SGD)),
    "B": (*SHARES, *YARDSTICKS, *WITH_NORMS, *MAIN, *AS_PUBLISHED),
    "C": (*SHARES, *YARDSTICKS, *MAIN),
    "D": (*SHARES, *MAIN[1:]),
}
"""Methods of each stream."""


def for_tasks(found: Recipe, tasks: int) -> Recipe:
    """Return a method's settings for so many tasks: the budget, the shares, the width of narrow networks."""
    if "budget" in found.spec.get("regularization", {}):
        return found.but(spec={"regularization": {"budget": 1 / tasks}})
    if found.by_share:
        return found.but(spec={"gates": {"tasks": tasks}})
    return found.but(width=1 / tasks) if found.width < 1 else found


def recipe(stream: str, method: str) -> Recipe:
    """Return the settings of a method on a stream."""
    found = for_tasks(METHODS[method], STREAMS[stream].tasks)
    changes = FOR_STREAM.get(stream, {})
    return found.but(**changes[method]) if method in changes else found


def jobs_of(stream: str, methods: Sequence[str] | None, seeds: int | None, tasks: int | None) -> list[Job]:
    """Return the runs of a stream, seed by seed, so that a grid that is stopped has whole comparisons."""
    chosen = methods or CHOSEN[stream]
    unknown = [name for name in chosen if name not in METHODS]
    if unknown:
        raise SystemExit(f"Expected methods among {', '.join(METHODS)}, but got {', '.join(unknown)}.")
    count = SEEDS[stream] if seeds is None else seeds
    return [
        Job(stream, method, seed, recipe(stream, method), tasks=tasks) for seed in range(count) for method in chosen
    ]
