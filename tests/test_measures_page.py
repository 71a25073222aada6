"""The page of measures says of each measure what its docstring says."""

from __future__ import annotations

import importlib.util
import inspect
from types import ModuleType

import pytest

import fgadahat_hooks as fh
from tests.support.tree import ROOT

NAMES = fh.registry.measures.names()


def generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate_measures", ROOT / "docs" / "generate_measures.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_is_up_to_date() -> None:
    written = (ROOT / "docs" / "measures.md").read_text(encoding="utf-8")
    assert written == generator().page(), "run `python docs/generate_measures.py`"


@pytest.mark.parametrize("name", NAMES)
def test_a_measure_says_what_it_is_what_it_costs_and_when_to_choose_it(name: str) -> None:
    cls = fh.registry.measures.get(name)
    text = inspect.cleandoc(cls.__doc__ or "")
    assert text.startswith("`I_i = ")
    assert cls.cost
    assert generator().when(text).endswith(".")


def test_all_of_the_method_are_there() -> None:
    published = {
        "activation_abs cbp_adaptation cbp_adaptive_contribution conductance_abs deeplift_abs deepliftshap_abs "
        "feature_ablation_abs gradcam_abs gradient_x_activation_abs gradientshap_abs input_weight_abs_sum "
        "input_weight_abs_sum_x_activation_abs input_weight_gradient_abs_sum input_weight_gradient_square_sum "
        "input_weight_gradient_square_sum_x_activation_abs integrated_gradients_abs internal_influence_abs lrp_abs "
        "output_weight_abs_sum output_weight_abs_sum_x_activation_abs output_weight_gradient_abs_sum "
        "output_weight_gradient_square_sum output_weight_gradient_square_sum_x_activation_abs"
    }
    assert set(published.pop().split()) <= set(NAMES)
