"""Predefined specs: this library's own settings, and those of the papers."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

from fgadahat_hooks.errors import BadCallError, UnknownNameError
from fgadahat_hooks.registry import suggest
from fgadahat_hooks.spec.attach_spec import AttachSpec, to_spec

_SHARES = {"choose": "share", "gains": "without_norms"}
_OWN: Mapping[str, Any] = {
    "regularization": {"factor": 0.0},  # masks by share are not learnt, so that there is nothing to keep sparse
    "plasticity": {"rescale": True, "learning_rates": "by_share"},
    "rest": "per_task",  # tables that only the first task trains hold all later ones back
}
_AS_PUBLISHED = {"s_max": 400.0, "annealing": "epoch"}
_PUBLISHED: Mapping[str, Any] = {"gates": _AS_PUBLISHED, "regularization": {"factor": 0.1}}
_HAT = {"mode": "hat"}
_IMPORTANCE = {"type": "input_weight_abs_sum_x_activation_abs"}
_FG_ADAHAT = {"mode": "fg_adahat", "scheduler": "linear_sparsity_reg", "aggregation": "min", "base_importance": 1e-8}
_ON_GRADIENT = {"apply_to": "gradient"}

_PRESETS: Mapping[str, Mapping[str, Any]] = {
    "hat": {**_OWN, "adjustment": _HAT},
    "adahat": {**_OWN, "adjustment": {"mode": "adahat", "intensity": 1e-3, "epsilon": 0.1}},
    "fg_adahat": {**_OWN, "importance": _IMPORTANCE, "adjustment": {**_FG_ADAHAT, "intensity": 3e-2}},
    "hat_lora": {**_OWN, "gates": {"targets": ["**.lora_A.*", "**.lora_B.*"]}, "adjustment": _HAT},
    "hat_published": {"gates": _AS_PUBLISHED, "regularization": {"factor": 0.75}, "adjustment": _HAT},
    "adahat_published": {
        **_PUBLISHED,
        "adjustment": {"mode": "adahat", "intensity": 1e-6, "epsilon": 0.1, **_ON_GRADIENT},
    },
    "fg_adahat_published": {
        **_PUBLISHED,
        "importance": _IMPORTANCE,
        "adjustment": {**_FG_ADAHAT, "intensity": 1.5e-7, "base_linear": 5.0, **_ON_GRADIENT},
    },
}


OWN_PRESETS = tuple(name for name in _PRESETS if not name.endswith("_published"))
ASSUMED_TASKS = 10


def preset(name: str, *, tasks: int | None = None) -> AttachSpec:
    """Return a predefined spec.

    `hat`, `fg_adahat`, `adahat` and `hat_lora` do not learn their masks (`gates.choose: share`): each task gets its
    part of every layer's units by lot, reads all units of earlier tasks, and trains at learning rates that make up
    for the closed part of the network (`plasticity`). The page "Units by share" of the documentation has the
    equations. Rates scale updates, so that they mean the same with every optimizer.

    The published ones are as in the papers: masks are learnt, and rates scale gradients, which is meant for Adam.

    Args:
        name: `hat` (nothing is ever forgotten, bit for bit; start here), `fg_adahat` (soft, by importance), `adahat`
            (soft, by how many tasks use a unit), `hat_lora` (nothing is ever forgotten; gates on the low-rank adapters
            of PEFT alone, the frozen base stays open), or the papers' `hat_published`, `adahat_published` and
            `fg_adahat_published`.
        tasks: How many tasks you expect; published presets ignore it. More may come: they get the units that are left,
            and share those of earlier tasks. When it is left out, 10 are assumed, and a warning says so.

    Raises:
        UnknownNameError: There is no preset of that name.
        BadCallError: `tasks` is not a whole number above 0.

    Example:
        >>> import fgadahat_hooks as fh
        >>> fh.preset("hat", tasks=20).gates.tasks
        20
    """
    if name not in _PRESETS:
        raise UnknownNameError(f"Expected one of {sorted(_PRESETS)}, but got {name!r}.{suggest(name, _PRESETS)}")
    if tasks is not None and (not isinstance(tasks, int) or isinstance(tasks, bool) or tasks < 1):
        raise BadCallError(f"Expected `tasks` to be a whole number > 0, but got {tasks!r}.")
    spec = dict(_PRESETS[name])
    if name in OWN_PRESETS:
        spec["gates"] = {**_SHARES, **spec.get("gates", {}), "tasks": _assumed(name) if tasks is None else tasks}
    return to_spec(spec)


def _assumed(name: str) -> int:
    warnings.warn(
        f"preset({name!r}) makes room for {ASSUMED_TASKS} tasks, since it was not told how many will come. "
        f"Pass preset({name!r}, tasks=...).",
        stacklevel=3,
    )
    return ASSUMED_TASKS
