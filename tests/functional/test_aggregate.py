from __future__ import annotations

import pytest
import torch

from fgadahat_hooks.errors import BadCallError
from fgadahat_hooks.functional import AGGREGATIONS, aggregate

OWN, INPUTS = torch.tensor([[1.0], [4.0]]), torch.tensor([[2.0, 0.0, 4.0]])


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        ("min", [[1.0, 0.0, 1.0], [2.0, 0.0, 4.0]]),
        ("max", [[2.0, 1.0, 4.0], [4.0, 4.0, 4.0]]),
        ("mean", [[1.5, 0.5, 2.5], [3.0, 2.0, 4.0]]),
    ],
)
def test_every_pair(mode: str, expected: list[list[float]]) -> None:
    assert aggregate(OWN, INPUTS, mode).tolist() == expected


@pytest.mark.parametrize("mode", sorted(AGGREGATIONS))
def test_own_unit_alone_without_inputs(mode: str) -> None:
    assert aggregate(OWN, None, mode) is OWN


@pytest.mark.parametrize(("mode", "expected"), [("min", [0.0, 1.0]), ("max", [1.0, 1.0]), ("mean", [0.5, 1.0])])
def test_bool_masks(mode: str, expected: list[float]) -> None:
    result = aggregate(torch.tensor([False, True]), torch.tensor([True, True]), mode)
    assert result.float().tolist() == expected


def test_unknown_mode_is_an_error() -> None:
    with pytest.raises(BadCallError, match=r"\['min', 'max', 'mean'\], but got 'median'"):
        aggregate(OWN, INPUTS, "median")
