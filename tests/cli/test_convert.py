"""`fgadahat-hooks convert`: every CLArena argument has a place in the spec, or is noted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import fgadahat_hooks as fh
from fgadahat_hooks.cli.clarena import convert_clarena
from fgadahat_hooks.cli.clarena_table import ALGORITHMS, FIXED_VALUES
from fgadahat_hooks.errors import SpecError
from fgadahat_hooks.spec.attach_spec import to_spec
from tests.support.commands import call

HAT: dict[str, Any] = {
    "adjustment_mode": "hat",
    "s_max": 300.0,
    "clamp_threshold": 40.0,
    "mask_sparsity_reg_factor": 0.5,
    "mask_sparsity_reg_mode": "cross",
    "task_embedding_init_mode": "U-11",
}
ADAHAT: dict[str, Any] = {**HAT, "adjustment_mode": "adahat_no_sum", "adjustment_intensity": 2e-6, "epsilon": 0.2}
FINE: dict[str, Any] = {
    "adjustment_intensity": 1.5e-7,
    "importance_type": "input_weight_gradient_abs_sum",
    "importance_summing_strategy": "exponential_decrease",
    "importance_summing_strategy_exponential_rate": 2.0,
    "importance_scheduler_type": "sparsity_reg",
    "neuron_to_weight_importance_aggregation_mode": "max",
    "s_max": 300.0,
    "clamp_threshold": 40.0,
    "mask_sparsity_reg_factor": 0.1,
    "base_importance": 1e-8,
    "base_mask_sparsity_reg": 0.3,
    "base_linear": 5,
    "filter_by_cumulative_mask": True,
    "filter_unmasked_importance": False,
    "step_multiply_training_mask": False,
}
GATES = {"s_max": 300.0, "annealing": "epoch", "clamp_threshold": 40.0, "init": "U-11"}


def hydra(name: str, arguments: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"cl_algorithm": {"_target_": f"clarena.cl_algorithms.{name}", **arguments}, **more}


def converted(data: dict[str, Any]) -> fh.AttachSpec:
    return to_spec(convert_clarena(data, "old.yaml").spec)


def problems(data: dict[str, Any]) -> list[str]:
    with pytest.raises(SpecError) as caught:
        convert_clarena(data, "old.yaml")
    assert caught.value.source == "old.yaml"
    return [f"{problem.path}: {problem.message}" for problem in caught.value.problems]


def test_hat() -> None:
    assert converted(hydra("HAT", HAT)) == to_spec(
        {
            "gates": GATES,
            "regularization": {"factor": 0.5, "mode": "cross"},
            "adjustment": {"mode": "hat", "apply_to": "gradient"},
        }
    )


def test_adahat() -> None:
    assert converted(hydra("AdaHAT", ADAHAT)) == to_spec(
        {
            "gates": GATES,
            "regularization": {"factor": 0.5, "mode": "cross"},
            "adjustment": {"mode": "adahat_no_sum", "intensity": 2e-6, "epsilon": 0.2, "apply_to": "gradient"},
        }
    )


def test_fg_adahat() -> None:
    assert converted(hydra("FGAdaHAT", FINE)) == to_spec(
        {
            "gates": {"s_max": 300.0, "annealing": "epoch", "clamp_threshold": 40.0},
            "regularization": {"factor": 0.1},
            "importance": {
                "type": "input_weight_gradient_abs_sum",
                "filter_unmasked": False,
                "multiply_training_mask": False,
            },
            "summation": {"strategy": "exponential_decrease", "exponential_rate": 2.0},
            "adjustment": {
                "mode": "fg_adahat",
                "intensity": 1.5e-7,
                "scheduler": "sparsity_reg",
                "aggregation": "max",
                "base_importance": 1e-8,
                "base_mask_sparsity_reg": 0.3,
                "base_linear": 5.0,
                "filter_by_cumulative_mask": True,
                "apply_to": "gradient",
            },
        }
    )


def test_the_defaults_are_the_references() -> None:
    given = {name: FINE[name] for name in FINE if not name.startswith(("base", "filter", "step"))}
    spec = converted(hydra("FGAdaHAT", given)).model_dump()
    assert spec["adjustment"]["base_importance"] == 0.01
    assert spec["adjustment"]["base_mask_sparsity_reg"] == 0.1
    assert spec["adjustment"]["base_linear"] == 10.0
    assert spec["importance"]["filter_unmasked"]


@pytest.mark.parametrize("name", sorted(ALGORITHMS))
def test_every_argument_has_its_own_place_in_the_spec(name: str) -> None:
    """Each place is a field of the variant that the argument belongs to."""
    blocks = fh.AttachSpec.model_json_schema()["$defs"]
    known = {field for block in blocks.values() for field in block["properties"]}
    spec_paths = [argument.spec_path for argument in ALGORITHMS[name].values()]
    assert len(set(spec_paths)) == len(spec_paths)
    assert not set(spec_paths) & set(FIXED_VALUES[name])
    assert {path.split(".")[0] for path in spec_paths} <= set(fh.AttachSpec.model_fields)
    assert {path.split(".")[1] for path in spec_paths} <= known


@pytest.mark.parametrize(
    ("strategy", "extra"),
    [("linear_decrease", "linear_step"), ("exponential_decrease", "exponential_rate"), ("log_decrease", "log_base")],
)
def test_parameters_of_strategies(strategy: str, extra: str) -> None:
    name = f"importance_summing_strategy_{extra}"
    given = {**FINE, "importance_summing_strategy": strategy, name: 3.0}
    result = convert_clarena(hydra("FGAdaHAT", given), "old.yaml")
    assert result.spec["summation"] == {"strategy": strategy, extra: 3.0}
    assert any("exponential_rate is left out" in note for note in result.notes) == (extra != "exponential_rate")
    without = {key: value for key, value in given.items() if key != name}
    (missing,) = problems(hydra("FGAdaHAT", without))
    assert missing.startswith(f"cl_algorithm.{name}: expected")


def test_a_rate_of_hat() -> None:
    spec = converted(hydra("HAT", {**HAT, "adjustment_mode": "hat_const_alpha", "alpha": 0.25}))
    assert spec.adjustment.model_dump() == {"mode": "hat_const_alpha", "alpha": 0.25, "apply_to": "gradient"}
    result = convert_clarena(hydra("HAT", {**HAT, "alpha": 0.25}), "old.yaml")
    assert "alpha is left out: hat makes no use of it." in result.notes


def test_other_forms_of_the_file() -> None:
    expected = converted(hydra("AdaHAT", ADAHAT))
    lightning = {"model": {"class_path": "clarena.cl_algorithms.adahat.AdaHAT", "init_args": ADAHAT}}
    assert converted(lightning) == converted(ADAHAT) == converted({"runs": [hydra("AdaHAT", ADAHAT)]}) == expected
    assert converted(HAT) == converted(hydra("HAT", HAT))
    assert converted(FINE) == converted(hydra("FGAdaHAT", FINE))


@pytest.mark.parametrize(("heads", "mode"), [("HeadsTIL", "per_task"), ("HeadDIL", "shared")])
def test_heads(heads: str, mode: str) -> None:
    block = {"_target_": f"clarena.heads.{heads}", "input_dim": 512}
    assert converted(hydra("HAT", HAT, heads=block)).heads.mode == mode
    assert converted(hydra("HAT", {**HAT, "heads": block})).heads.mode == mode


def test_heads_of_another_kind_are_reported() -> None:
    (problem,) = problems(hydra("HAT", HAT, heads={"_target_": "clarena.cl_heads.HeadsCIL"}))
    assert problem.startswith("heads: expected heads among HeadsTIL, HeadDIL")


def test_all_problems_are_reported_at_once_with_their_names_in_the_file() -> None:
    wrong = {**HAT, "s_max": -1, "smax": 4, "clamp_threshold": "${clamp}", "mask_sparsity_reg_mode": "crss"}
    unknown, clamp, scale, mode = problems(hydra("HAT", wrong))
    assert "Did you mean 's_max'? --lenient leaves it out." in unknown
    assert clamp.startswith("cl_algorithm.clamp_threshold: expected a value, got '${clamp}'.")
    assert scale == "cl_algorithm.s_max: expected a finite number > 0, got -1."
    assert mode.startswith("cl_algorithm.mask_sparsity_reg_mode: expected one of 'original', 'cross', got 'crss'.")


def test_a_mode_of_another_class_is_reported() -> None:
    (problem,) = problems(hydra("HAT", {**HAT, "adjustment_mode": "adahat"}))
    assert problem.startswith("cl_algorithm.adjustment_mode: expected one of 'hat', 'hat_random'")
    (problem,) = problems(hydra("AdaHAT", {**ADAHAT, "adjustment_mode": "adahatt"}))
    assert problem.endswith("got 'adahatt'. Did you mean 'adahat'?")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"lr": 0.1}, "got none"),
        ({"cl_algorithm": {"_target_": "clarena.cl_algorithms.EWC"}}, "got 'EWC'"),
        ({"a": hydra("HAT", HAT), "b": hydra("HAT", HAT)}, "got 2: 'a.cl_algorithm', 'b.cl_algorithm'. Leave one."),
    ],
)
def test_one_algorithm_is_needed(data: dict[str, Any], message: str) -> None:
    (problem,) = problems(data)
    assert message in problem


def test_a_file_that_contains_itself_is_reported(tmp_path: Path) -> None:
    (tmp_path / "old.yaml").write_text("a: &a\n  b: *a\n", encoding="utf-8")
    result = call("convert", tmp_path / "old.yaml")
    assert result.status == 2
    assert "expected a file of a few levels" in result.err


def test_arguments_without_a_place_are_noted() -> None:
    given = {**HAT, "backbone": {"_target_": "clarena.backbones.HATMaskMLP"}, "non_algorithmic_hparams": {}}
    del given["s_max"]
    notes = convert_clarena(hydra("HAT", given), "old.yaml").notes
    assert any(note.startswith("backbone has no place in a spec: your own model") for note in notes)
    assert any(note.startswith("non_algorithmic_hparams has no place") for note in notes)
    assert any(note.startswith("s_max is not given") for note in notes)


def test_the_command_writes_a_spec_with_its_notes(tmp_path: Path) -> None:
    old, new = tmp_path / "old.yaml", tmp_path / "new.yaml"
    old.write_text(json.dumps(hydra("FGAdaHAT", {**FINE, "optimizer": None})), encoding="utf-8")
    result = call("convert", old, "-o", new, "--schema", "s.json")
    assert (result.status, result.out) == (0, "")
    assert f"Wrote {new}, from the arguments of FGAdaHAT." in result.err
    assert "optimizer has no place in a spec" in result.err
    text = new.read_text(encoding="utf-8")
    assert text.startswith("# yaml-language-server: $schema=s.json\n# The arguments of CLArena's FGAdaHAT in old.yaml")
    assert "# - optimizer has no place in a spec" in text
    assert "# - importance.gradient: raw" in text
    assert all(len(line) <= 120 for line in text.splitlines())
    assert fh.load_spec(new) == converted(hydra("FGAdaHAT", FINE))
    assert call("validate", new).status == 0
    printed = call("convert", old, "--schema", "s.json")
    assert (printed.status, printed.out, printed.err) == (0, text, "")


def test_the_command_writes_json(tmp_path: Path) -> None:
    old, new = tmp_path / "old.yaml", tmp_path / "new.json"
    old.write_text(json.dumps(hydra("HAT", HAT)), encoding="utf-8")
    assert call("convert", old, "-o", new).status == 0
    assert fh.load_spec(new) == converted(HAT)


def test_lenient_leaves_out_what_is_unknown(tmp_path: Path) -> None:
    old = tmp_path / "old.yaml"
    old.write_text(json.dumps(hydra("HAT", {**HAT, "buffer_size": 3})), encoding="utf-8")
    refused, taken = call("convert", old), call("convert", old, "--lenient")
    assert (refused.status, refused.out) == (2, "")
    assert "cl_algorithm.buffer_size: expected an argument of HAT" in refused.err
    assert taken.status == 0
    assert "# - buffer_size is left out: no argument of HAT." in taken.out
