"""Specs that are valid, specs that are nearly so, and anything."""

from __future__ import annotations

import copy
from typing import Any

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from fgadahat_hooks import registry

Data = dict[str, Any]

POSITIVE = st.floats(1e-6, 1e6) | st.integers(1, 1000)
ABOVE_ONE = st.floats(1.001, 1e3)
FLAGS = st.booleans()
WORDS = st.text(min_size=1, max_size=6)


def _some(**fields: SearchStrategy[Any]) -> SearchStrategy[Data]:
    """Draw a mapping with any of the fields."""
    return st.fixed_dictionaries({}, optional=fields)


def _tagged(tag: str, names: list[str], optional: Data | None = None, **needed: SearchStrategy[Any]) -> Any:
    return st.fixed_dictionaries({tag: st.sampled_from(names), **needed}, optional=optional or {})


GATES = _some(
    targets=st.sampled_from(["all", "all-linear", "all-conv", "*", "re:.*", ["**", "head"]]),
    exclude=st.sampled_from([[], ["head"], ["layer*.?", "re:^x"]]),
    position=st.sampled_from(["auto", "output"]),
    s_max=POSITIVE,
    annealing_power=POSITIVE,
    clamp_threshold=POSITIVE,
    embedding_clamp=POSITIVE,
    init=st.sampled_from(["N01", "U-11", "U01", "U-10", "last"]),
)
IMPORTANCE = _some(
    type=st.sampled_from(sorted(registry.measures.names())),
    gradient=st.sampled_from(["raw", "adjusted"]),
    every_n_steps=st.integers(1, 100),
    budget=st.none() | st.floats(0.01, 1),
    max_samples=st.none() | st.integers(1, 100),
    filter_unmasked=FLAGS,
    multiply_training_mask=FLAGS,
)
PLAIN = "add_latest add_all add_average quadratic_decrease cubic_decrease factorial_decrease".split()
SUMMATION = st.one_of(
    _tagged("strategy", PLAIN),
    _tagged("strategy", ["linear_decrease"], linear_step=POSITIVE),
    _tagged("strategy", ["exponential_decrease"], exponential_rate=ABOVE_ONE),
    _tagged("strategy", ["log_decrease"], log_base=ABOVE_ONE),
)
_APPLY = {"apply_to": st.sampled_from(["update", "gradient"])}
ADJUSTMENT = st.one_of(
    _tagged(
        "mode",
        ["fg_adahat"],
        {"intensity": POSITIVE, "aggregation": st.sampled_from(["min", "max", "mean"]), "base_linear": POSITIVE}
        | {"filter_by_cumulative_mask": FLAGS}
        | _APPLY,
    ),
    _tagged(
        "mode", ["adahat", "adahat_no_sum", "adahat_no_reg"], {"intensity": POSITIVE, "epsilon": POSITIVE} | _APPLY
    ),
    _tagged("mode", ["hat", "hat_const_1"], _APPLY),
    _tagged("mode", ["hat_random"], {"seed": st.integers(0, 2**63 - 1)} | _APPLY),
    _tagged("mode", ["hat_const_alpha"], _APPLY, alpha=POSITIVE),
)
VALID = _some(
    version=st.just(1),
    gates=GATES,
    heads=_some(
        names=st.none() | st.lists(WORDS, max_size=2, unique=True), mode=st.sampled_from(["per_task", "shared"])
    ),
    norms=st.sampled_from(["per_task", "freeze", "share"]),
    rest=st.sampled_from(["freeze", "per_task", "share"]),
    regularization=_some(
        factor=POSITIVE | st.just(0),
        mode=st.sampled_from(["original", "cross"]),
        budget=st.floats(0, 1),
    ),
    importance=IMPORTANCE,
    summation=SUMMATION,
    adjustment=ADJUSTMENT,
)
"""Mappings that are specs."""

JUNK: SearchStrategy[Any] = st.recursive(
    st.none() | FLAGS | st.integers() | st.floats() | st.text(max_size=8) | st.binary(max_size=4) | st.just(object()),
    lambda part: st.lists(part, max_size=3) | st.dictionaries(st.text(max_size=8) | st.integers(), part, max_size=3),
    max_leaves=6,
)
"""Whatever can stand in a mapping."""


@st.composite
def nearly_valid(draw: st.DrawFn) -> Data:
    """Draw a spec, and spoil it (or not) in one to three places."""
    spec: Data = copy.deepcopy(draw(VALID))
    for _ in range(draw(st.integers(1, 3))):
        place = spec
        inner: list[Data] = [part for part in place.values() if isinstance(part, dict)]
        deeper = draw(FLAGS)
        if inner and deeper:
            place = draw(st.sampled_from(inner))
        key = draw(st.sampled_from([*map(str, place), "gate", "mode", "type", ""]) | st.text(max_size=5))
        if draw(st.integers(0, 3)) == 0:
            place.pop(key, None)
        else:
            place[key] = draw(JUNK)
    return spec


ANYTHING = nearly_valid() | JUNK
"""Specs spoilt in a few places, and what is no spec at all."""
