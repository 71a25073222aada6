"""Example inputs from shapes on the command line."""

from __future__ import annotations

import pytest
import torch

from fgadahat_hooks.cli.inputs import make_inputs
from fgadahat_hooks.errors import BadCallError


def test_positional_inputs_of_one_dtype() -> None:
    inputs = make_inputs(["3,4", "5"], [], 2)
    assert isinstance(inputs, tuple)
    assert [x.shape for x in inputs] == [(2, 3, 4), (2, 5)]
    assert all(x.dtype == torch.float32 and x.std() > 0 for x in inputs)


def test_inputs_are_the_same_each_time() -> None:
    one, two = make_inputs(["3"], [], 2), make_inputs(["3"], [], 2)
    assert isinstance(one, tuple)
    assert isinstance(two, tuple)
    assert torch.equal(one[0], two[0])


def test_named_inputs_with_a_dtype_each() -> None:
    inputs = make_inputs(["ids=7", "mask=7"], ["long", "bool"], 3)
    assert isinstance(inputs, dict)
    assert {name: (x.dtype, tuple(x.shape)) for name, x in inputs.items()} == {
        "ids": (torch.int64, (3, 7)),
        "mask": (torch.bool, (3, 7)),
    }
    assert bool(inputs["mask"].all())


@pytest.mark.parametrize(
    ("shapes", "dtypes", "message"),
    [
        (["3x4"], [], "whole numbers with commas between, but got '3x4'"),
        (["3,0"], [], "but got '3,0'"),
        ([""], [], "but got ''"),
        (["3"], ["lnog"], "Did you mean 'long'"),
        (["3", "4", "5"], ["long", "bool"], "once for each of 3 inputs, but got it 2 times"),
        (["a=3", "4"], [], "with a name of its own"),
        (["a=3", "a=4"], [], "with a name of its own"),
    ],
)
def test_what_cannot_be_read_is_reported(shapes: list[str], dtypes: list[str], message: str) -> None:
    with pytest.raises(BadCallError, match=message):
        make_inputs(shapes, dtypes, 2)
