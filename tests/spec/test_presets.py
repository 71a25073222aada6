"""Every preset is a complete spec, with which a session learns."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn

import fgadahat_hooks as fh
from fgadahat_hooks.errors import BadCallError, UnknownNameError
from tests.support.small import batches, learn, mlp

NAMES = tuple(sorted(re.findall(r"`(\w+)`", (fh.preset.__doc__ or "").split("name:")[1].split("tasks:")[0])))
PUBLISHED = tuple(name for name in NAMES if name.endswith("_published"))
OWN = tuple(name for name in NAMES if name not in PUBLISHED)
ADAPTED = "hat_lora"


def model_for(name: str) -> nn.Module:
    """Return a model for a preset, with low-rank adapters for the one that gates them."""
    model = mlp(4, 8, 3)
    if name != ADAPTED:
        return model
    config = LoraConfig(r=4, target_modules=["0"], modules_to_save=["2"], init_lora_weights=False)
    return get_peft_model(model, config).double()


def test_the_docstring_names_every_preset() -> None:
    with pytest.raises(UnknownNameError) as caught:
        fh.preset("")
    assert str(caught.value) == f"Expected one of {list(NAMES)}, but got ''."
    assert sorted(f"{name}_published" for name in OWN if name != ADAPTED) == list(PUBLISHED)


@pytest.mark.parametrize("name", NAMES)
def test_a_preset_is_a_valid_spec_of_its_mode(name: str) -> None:
    spec = fh.preset(name, tasks=4)
    assert isinstance(spec, fh.AttachSpec)
    assert spec.adjustment.mode == name.removesuffix("_published").removesuffix("_lora")
    assert fh.AttachSpec.model_validate(spec.model_dump()) == spec


@pytest.mark.parametrize("name", NAMES)
def test_a_preset_learns_two_tasks(name: str) -> None:
    session = fh.attach(model_for(name), fh.preset(name, tasks=4), torch.randn(2, 4, dtype=torch.float64))
    for task in ("a", "b"):
        learn(session, task, batches(4, 3))
    assert session.capacity() < 1
    assert bool(session.importance("a")) == name.startswith("fg_adahat")


def test_only_hat_never_forgets() -> None:
    example = torch.randn(2, 4, dtype=torch.float64)
    keeps = [name for name in NAMES if not fh.plan(model_for(name), fh.preset(name, tasks=4), example).leaks]
    assert keeps == ["hat", "hat_lora", "hat_published"]


@pytest.mark.parametrize("name", OWN)
@pytest.mark.parametrize("tasks", [1, 3, 20])
def test_own_presets_leave_room_for_the_expected_tasks(name: str, tasks: int) -> None:
    spec = fh.preset(name, tasks=tasks)
    assert (spec.gates.choose, spec.gates.tasks) == ("share", tasks)
    assert spec.regularization.factor == 0
    assert spec.plasticity.rescale
    assert (spec.plasticity.learning_rates, spec.plasticity.norm_statistics) == ("by_share", "measured")
    assert getattr(spec.adjustment, "apply_to", "update") == "update"


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_presets_use_none_of_our_additions(name: str) -> None:
    spec = fh.preset(name, tasks=3)
    assert spec == fh.preset(name)
    assert spec.regularization.budget == 0
    assert (spec.gates.choose, spec.gates.annealing, spec.gates.annealing_power) == ("learn", "epoch", 1)
    assert (spec.plasticity.rescale, spec.plasticity.learning_rates) == (False, "as_given")
    assert name == "hat_published" or spec.adjustment.model_dump()["apply_to"] == "gradient"


@pytest.mark.parametrize("tasks", [0, -1, 2.0, True, "ten"])
def test_an_invalid_number_of_tasks_is_refused(tasks: Any) -> None:
    with pytest.raises(BadCallError) as caught:
        fh.preset("hat", tasks=tasks)
    assert str(caught.value) == f"Expected `tasks` to be a whole number > 0, but got {tasks!r}."


@pytest.mark.parametrize("name", OWN)
def test_what_is_assumed_without_a_number_of_tasks_is_said(name: str) -> None:
    with pytest.warns(UserWarning, match=rf"preset\('{name}'\) makes room for 10 tasks.*tasks=\.\.\.") as caught:
        assert fh.preset(name) == fh.preset(name, tasks=10)
    assert caught[0].filename == __file__


def test_an_unknown_preset_gets_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'adahat'"):
        fh.preset("ada-hat")
