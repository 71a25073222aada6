from __future__ import annotations

import pytest
import torch
from torch import Tensor

from fgadahat_hooks.graph.unit_graph import Activation, InputMap, UnitGraph, UnitLayer


def long(*numbers: int) -> Tensor:
    return torch.tensor(numbers, dtype=torch.long)


def layer(name: str, units: int, offset: int) -> UnitLayer:
    return UnitLayer(name, units, offset, "output", (name,), name, -1)


MAP = InputMap(4, torch.tensor([False, False, True, False]), long(0, 1, 1), long(2, 0, 4))
"""Feature 0 of unit 2, 1 of units 0 and 4, 2 live, 3 always zero."""


@pytest.fixture
def graph() -> UnitGraph:
    empty = InputMap.all_live(2)
    return UnitGraph({"a": layer("a", 3, 0), "b": layer("b", 2, 3)}, {"a": empty, "b": MAP, "head": MAP}, ("head",))


def test_largest_value_of_the_units_that_feed_a_feature() -> None:
    values = torch.tensor([5.0, 0.0, 2.0, 0.0, 7.0], dtype=torch.float64)
    assert MAP.gather_max(values, 1.0).tolist() == [2.0, 7.0, 1.0, 0.0]
    assert MAP.gather_max(values, torch.tensor(9.0)).dtype == torch.float64


def test_all_live() -> None:
    inputs = InputMap.all_live(3)
    assert not inputs.has_predecessor
    assert inputs.resolved == 0.0
    assert inputs.gather_max(torch.zeros(5), 1.0).tolist() == [1.0] * 3


def test_share_of_known_inputs() -> None:
    assert MAP.resolved == 0.75
    assert MAP.has_predecessor
    assert InputMap.all_live(0).resolved == 1.0


def test_values_of_all_units(graph: UnitGraph) -> None:
    assert graph.total_units == 5
    values = {"b": torch.tensor([3.0, 4.0]), "a": torch.tensor([0.0, 1.0, 2.0])}
    joined = graph.join(values)
    assert joined.tolist() == [0, 1, 2, 3, 4]
    assert {n: v.tolist() for n, v in graph.split(joined).items()} == {"a": [0, 1, 2], "b": [3, 4]}


def test_consumers(graph: UnitGraph) -> None:
    found = graph.consumers("a")
    assert [c.layer for c in found] == ["b", "head"]
    assert (found[0].unit.tolist(), found[0].feature.tolist()) == ([2, 0], [0, 1])
    assert [(c.unit.tolist(), c.feature.tolist()) for c in graph.consumers("b")] == [([1], [1])] * 2


def test_an_activation_is_called_out_of_place() -> None:
    x = torch.tensor([-1.0, 2.0])
    assert Activation("relu")(x).tolist() == [0.0, 2.0]
    assert Activation("leaky_relu", (0.5,))(x).tolist() == [-0.5, 2.0]
    tanh = torch.nn.functional.gelu(x, approximate="tanh")
    assert torch.equal(Activation("gelu", (), (("approximate", "tanh"),))(x), tanh)
    assert x.tolist() == [-1.0, 2.0]
