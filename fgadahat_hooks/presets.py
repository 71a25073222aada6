"""Specs to start from."""

from __future__ import annotations

from fgadahat_hooks.errors import UnknownNameError
from fgadahat_hooks.registry import suggest
from fgadahat_hooks.spec import AttachSpec, to_spec

_PRESETS: dict[str, dict[str, object]] = {
    "hat": {"adjustment": {"mode": "hat"}},
    "adahat": {"adjustment": {"mode": "adahat", "intensity": 1e-6, "epsilon": 0.1, "apply_to": "gradient"}},
    "fg_adahat": {
        "importance": {"type": "input_weight_abs_sum_x_activation_abs"},
        "summation": {"strategy": "add_all"},
        "adjustment": {
            "mode": "fg_adahat",
            "intensity": 1e-2,
            "scheduler": "linear_sparsity_reg",
            "aggregation": "min",
            "base_importance": 1e-8,
        },
    },
}


def preset(name: str) -> AttachSpec:
    """Return a ready spec.

    Args:
        name: `hat` (nothing is ever forgotten, bit for bit), `adahat` (as published: soft, scales gradients, meant
            for Adam) or `fg_adahat` (soft, by importance, scales updates).

    Raises:
        UnknownNameError: There is no such preset.

    Example:
        >>> import fgadahat_hooks as fh
        >>> fh.preset("hat").adjustment.mode
        'hat'
    """
    if name not in _PRESETS:
        raise UnknownNameError(f"Expected one of {sorted(_PRESETS)}, but got {name!r}.{suggest(name, _PRESETS)}")
    return to_spec(_PRESETS[name])
