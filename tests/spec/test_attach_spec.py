"""Valid specs and their guarantees; the error cases are in `bad_specs`."""

from __future__ import annotations

import copy
import pickle
from collections import OrderedDict
from types import MappingProxyType
from typing import Any, get_args

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from fgadahat_hooks import registry
from fgadahat_hooks.errors import BadCallError, SpecError
from fgadahat_hooks.functional.adjust import SCHEDULERS
from fgadahat_hooks.functional.aggregate import AGGREGATIONS
from fgadahat_hooks.functional.summation import STRATEGIES
from fgadahat_hooks.spec.attach_spec import (
    HAT,
    AdaHAT,
    AdjustmentSpec,
    AttachSpec,
    Block,
    ExponentialDecrease,
    FGAdaHAT,
    GatesSpec,
    HATConstAlpha,
    HATRandom,
    HeadsSpec,
    ImportanceSpec,
    LinearDecrease,
    LogDecrease,
    PlainSummation,
    RegularizationSpec,
    SummationSpec,
    to_adjustment,
    to_importance,
    to_spec,
    to_summation,
)
from fgadahat_hooks.spec.errors import variants

BLOCKS: list[type[Block]] = [
    AttachSpec,
    GatesSpec,
    HeadsSpec,
    RegularizationSpec,
    ImportanceSpec,
    PlainSummation,
    LinearDecrease,
    ExponentialDecrease,
    LogDecrease,
    FGAdaHAT,
    AdaHAT,
    HAT,
    HATRandom,
    HATConstAlpha,
]


class WithSteps:
    """A stand-in for a measure with a parameter."""

    def __init__(self, n_steps: int = 50) -> None:
        if n_steps < 1:
            raise BadCallError(f"Expected n_steps >= 1, got {n_steps}.")


@pytest.fixture(autouse=True)
def measures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Register the measures that these tests name, unless they are registered already."""
    for name in ("with_steps", "activation_abs", "input_weight_abs_sum_x_activation_abs"):
        if name not in registry.measures:
            monkeypatch.setitem(registry.measures._items, name, WithSteps)


def test_the_defaults() -> None:
    spec = AttachSpec()
    assert spec.model_dump() == {
        "version": 1,
        "gates": {
            "targets": ("all",),
            "exclude": (),
            "position": "auto",
            "s_max": 400.0,
            "annealing_power": 1.0,
            "annealing": "task",
            "settle": 0.5,
            "clamp_threshold": 50.0,
            "embedding_clamp": 6.0,
            "init": "N01",
            "choose": "learn",
            "tasks": None,
            "gains": "none",
        },
        "heads": {"names": None, "mode": "per_task"},
        "plasticity": {
            "rescale": False,
            "learning_rates": "as_given",
            "norm_statistics": "measured",
            "gain_factor": 10.0,
            "norm_factor": 1.0,
            "calibrated_std": 0.5,
            "max_factor": 8.0,
            "max_step": 0.2,
        },
        "norms": "per_task",
        "rest": "freeze",
        "regularization": {"factor": 0.75, "mode": "original", "budget": 0.0},
        "importance": {
            "type": "input_weight_abs_sum_x_activation_abs",
            "params": {},
            "gradient": "raw",
            "every_n_steps": 1,
            "budget": None,
            "max_samples": None,
            "filter_unmasked": True,
            "multiply_training_mask": True,
        },
        "summation": {"strategy": "add_all"},
        "adjustment": {"mode": "hat", "apply_to": "update"},
    }
    assert spec == to_spec({})


def test_the_defaults_of_fg_adahat() -> None:
    assert FGAdaHAT().model_dump() == {
        "mode": "fg_adahat",
        "intensity": 3e-2,
        "scheduler": "linear_sparsity_reg",
        "aggregation": "min",
        "base_importance": 0.01,
        "base_mask_sparsity_reg": 0.1,
        "base_linear": 10.0,
        "filter_by_cumulative_mask": False,
        "apply_to": "update",
    }


@pytest.mark.parametrize(("mode", "update", "gradient"), [("fg_adahat", 3e-2, 1.5e-7), ("adahat", 1e-3, 1e-6)])
def test_the_default_intensity_depends_on_what_the_rate_scales(mode: str, update: float, gradient: float) -> None:
    def intensity(**adjustment: Any) -> Any:
        return getattr(to_spec({"adjustment": {"mode": mode, **adjustment}}).adjustment, "intensity", None)

    assert intensity() == intensity(apply_to="update") == update
    assert intensity(apply_to="gradient") == gradient
    assert intensity(apply_to="gradient", intensity=0.5) == 0.5


@pytest.mark.parametrize("block", BLOCKS)
def test_every_field_has_a_description(block: type[Block]) -> None:
    assert all(field.description for field in block.model_fields.values())


def numbers(model: type[BaseModel]) -> list[str]:
    """Return the descriptions of all number fields."""
    return [str(f.description) for f in model.model_fields.values() if f.annotation in (int, float)]


@pytest.mark.parametrize("text", [text for block in BLOCKS for text in numbers(block)])
def test_every_number_has_a_unit_and_a_source(text: str) -> None:
    assert "; " in text or "; in" in text or "Seed" in text or "in optimizer steps" in text
    assert any(source in text for source in ("HAT", "CLArena", "Seed", "n-th step"))


def tags(union: Any) -> set[str]:
    """Return the tags of a union."""
    return set(variants(union)[1])


def test_the_choices_are_those_of_the_functional_tables() -> None:
    assert tags(SummationSpec) == set(STRATEGIES)
    assert set(get_args(FGAdaHAT.model_fields["scheduler"].annotation)) == set(SCHEDULERS)
    assert set(get_args(FGAdaHAT.model_fields["aggregation"].annotation)) == set(AGGREGATIONS)
    assert tags(AdjustmentSpec) == {
        "fg_adahat",
        "adahat",
        "adahat_no_sum",
        "adahat_no_reg",
        "hat",
        "hat_random",
        "hat_const_alpha",
        "hat_const_1",
    }


@pytest.mark.parametrize(
    ("given", "block"),
    [
        ({"strategy": "factorial_decrease"}, PlainSummation(strategy="factorial_decrease")),
        ({"strategy": "linear_decrease", "linear_step": 2}, LinearDecrease(linear_step=2.0)),
        ({"strategy": "exponential_decrease", "exponential_rate": 2.5}, ExponentialDecrease(exponential_rate=2.5)),
        ({"strategy": "log_decrease", "log_base": 10}, LogDecrease(log_base=10.0)),
    ],
)
def test_summation(given: dict[str, Any], block: Block) -> None:
    assert to_summation(given) == block
    assert to_spec({"summation": given}).summation == block


@pytest.mark.parametrize(
    ("given", "block"),
    [
        ({"mode": "fg_adahat", "intensity": 1e-5}, FGAdaHAT(intensity=1e-5)),
        ({"mode": "adahat_no_reg"}, AdaHAT(mode="adahat_no_reg", intensity=1e-3, epsilon=0.1)),
        ({"mode": "hat_const_1", "apply_to": "gradient"}, HAT(mode="hat_const_1", apply_to="gradient")),
        ({"mode": "hat_random", "seed": 7}, HATRandom(seed=7)),
        ({"mode": "hat_const_alpha", "alpha": 0}, HATConstAlpha(alpha=0.0)),
    ],
)
def test_adjustment(given: dict[str, Any], block: Block) -> None:
    assert to_adjustment(given) == block
    assert to_spec({"adjustment": given}).adjustment == block


def test_a_single_name_becomes_a_list() -> None:
    spec = to_spec({"gates": {"targets": "all-linear", "exclude": "fc"}, "heads": {"names": "head"}})
    assert spec.gates.targets == ("all-linear",)
    assert spec.gates.exclude == ("fc",)
    assert spec.heads.names == ("head",)
    assert to_spec({"heads": {"names": ["a", "b.c"]}}).heads.names == ("a", "b.c")


def test_any_mapping_is_accepted_at_any_depth() -> None:
    given = MappingProxyType({"gates": MappingProxyType({"s_max": 10}), "adjustment": OrderedDict(mode="hat")})
    assert to_spec(given) == AttachSpec(gates=GatesSpec(s_max=10.0))


def test_a_block_is_returned_unchanged() -> None:
    spec, summation, adjustment, importance = AttachSpec(), PlainSummation(), HAT(), ImportanceSpec()
    assert to_spec(spec) is spec
    assert to_summation(summation) is summation
    assert to_adjustment(adjustment) is adjustment
    assert to_importance(importance) is importance


def test_the_messages_of_a_single_block() -> None:
    with pytest.raises(SpecError) as caught:
        to_adjustment(3)
    assert str(caught.value) == (
        "The spec has 1 problem:\n"
        "  expected a mapping or FGAdaHAT or AdaHAT or HAT or HATRandom or HATConstAlpha, got 3."
    )
    with pytest.raises(SpecError, match=r"\n  mode: expected one of .*, got 'hatt'\. Did you mean 'hat'\?$"):
        to_adjustment({"mode": "hatt"})
    with pytest.raises(SpecError, match=r"\n  type: expected the name of a measure, got 'x'\."):
        to_importance({"type": "x"})


def test_constructing_a_block_raises_the_same_error() -> None:
    with pytest.raises(SpecError) as caught:
        GatesSpec(s_max=0, inti="N01")  # type: ignore[call-arg]
    assert [problem.path for problem in caught.value.problems] == ["s_max", "inti"]
    with pytest.raises(SpecError) as caught:
        AttachSpec(gates={"s_max": 0}, norms="x")
    assert [problem.path for problem in caught.value.problems] == ["gates.s_max", "norms"]
    with pytest.raises(SpecError, match="linear_step: expected a finite number > 0, got nothing"):
        LinearDecrease()  # type: ignore[call-arg]


def test_the_measure_checks_its_parameters(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(registry.measures._items, "with_steps", WithSteps)
    assert to_importance({"type": "with_steps", "params": {"n_steps": 5}}).params == {"n_steps": 5}
    with pytest.raises(SpecError, match=r"params: expected parameters of 'with_steps', got .*\. Expected n_steps >= 1"):
        to_importance({"type": "with_steps", "params": {"n_steps": 0}})
    with pytest.raises(SpecError, match=r"params: .* unexpected keyword argument 'steps'"):
        to_importance({"type": "with_steps", "params": {"steps": 5}})


def test_a_measure_registered_later_is_accepted(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SpecError):
        ImportanceSpec(type="mine")
    monkeypatch.setitem(registry.measures._items, "mine", WithSteps)
    assert ImportanceSpec(type="mine").type == "mine"


def test_a_spec_is_immutable() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        AttachSpec().norms = "share"  # type: ignore[misc]


def test_specs_do_not_share_their_parameters() -> None:
    AttachSpec().importance.params["n_steps"] = 5
    given = {"n_steps": 5}
    spec = ImportanceSpec(type="with_steps", params=given)
    given["n_steps"] = 6
    assert spec.params == {"n_steps": 5}
    assert AttachSpec().importance.params == {}


def test_copies_are_equal() -> None:
    spec = to_spec({"adjustment": {"mode": "adahat"}, "gates": {"targets": ["a.*", "re:b"]}})
    assert copy.deepcopy(spec) == spec
    assert pickle.loads(pickle.dumps(spec)) == spec  # noqa: S301
    assert to_spec(spec.model_dump()) == spec
    assert AttachSpec.model_validate_json(spec.model_dump_json()) == spec


LEAVES = st.sampled_from(
    [None, True, False, -1, 0, 1, 2**70, 0.5, float("nan"), -float("inf"), "", "all", "hat", "re:("]
)
JUNK = (
    LEAVES
    | st.lists(LEAVES, max_size=2)
    | st.dictionaries(st.sampled_from(["mode", "type", 1, ""]), LEAVES, max_size=2)
)
KEYS = sorted({key for block in BLOCKS for key in block.model_fields})
FIELDS = st.sampled_from(list(AttachSpec.model_fields))


def problems_of(given: dict[str, Any]) -> list[str]:
    """Return the messages about a spec."""
    try:
        to_spec(given)
    except SpecError as error:
        return [problem.message for problem in error.problems] or ["an error without a problem"]
    return []


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
@given(st.dictionaries(FIELDS, st.dictionaries(st.sampled_from(KEYS), JUNK, max_size=3) | JUNK, max_size=3))
def test_junk_gives_a_spec_or_our_own_messages(given: dict[str, Any]) -> None:
    assert all(message.startswith("expected ") for message in problems_of(given))
