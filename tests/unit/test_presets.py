"""Every preset is a whole spec that attaches and learns."""

from __future__ import annotations

import re

import pytest
import torch

import fgadahat_hooks as fh
from fgadahat_hooks.errors import UnknownNameError
from tests.small import batches, learn, mlp

NAMES = tuple(sorted(re.findall(r"`(\w+)`", (fh.preset.__doc__ or "").split("Raises:")[0].split("name:")[1])))


def test_the_docstring_names_every_preset() -> None:
    with pytest.raises(UnknownNameError) as caught:
        fh.preset("")
    assert str(caught.value) == f"Expected one of {list(NAMES)}, but got ''."


@pytest.mark.parametrize("name", NAMES)
def test_a_preset_is_a_valid_spec_of_its_mode(name: str) -> None:
    spec = fh.preset(name)
    assert isinstance(spec, fh.AttachSpec)
    assert spec.adjustment.mode == name
    assert fh.AttachSpec.model_validate(spec.model_dump()) == spec


@pytest.mark.parametrize("name", NAMES)
def test_a_preset_learns_two_tasks(name: str) -> None:
    session = fh.attach(mlp(4, 8, 3), fh.preset(name), torch.randn(2, 4, dtype=torch.float64))
    for task in ("a", "b"):
        learn(session, task, batches(4, 3))
    assert session.capacity() < 1
    assert bool(session.importance("a")) == (name == "fg_adahat")


def test_only_hat_never_forgets() -> None:
    model = mlp(4, 8, 3)
    example = torch.randn(2, 4, dtype=torch.float64)
    assert [name for name in NAMES if not fh.plan(model, fh.preset(name), example).leaks] == ["hat"]


def test_an_unknown_preset_gets_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'adahat'"):
        fh.preset("ada-hat")
