from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from fgadahat_hooks import registry
from fgadahat_hooks.errors import BadCallError, DuplicateNameError
from fgadahat_hooks.importance import LayerView, Measure, register_measure
from tests.importance.views import view


class Largest(Measure):
    """Largest absolute weight of each unit, to a power."""

    needs = frozenset({"weight"})

    def __init__(self, power: float = 1.0) -> None:
        self.power = power

    def compute(self, view: LayerView) -> Tensor:
        return view.weight.detach().abs().amax(1) ** self.power


@pytest.fixture(autouse=True)
def _restored_registry(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Remove what a test registers."""
    monkeypatch.setattr(registry.measures, "_items", dict(registry.measures._items))
    yield
    Largest.name = ""


def test_own_measure_with_a_parameter() -> None:
    assert register_measure("largest")(Largest) is Largest
    assert Largest.name == "largest"
    built = registry.measures.get("largest")(power=2.0)
    assert built.compute(view()).tolist() == [4.0, 0.25]


def test_taken_name_is_an_error_and_changes_nothing() -> None:
    before = registry.measures.get("activation_abs")
    with pytest.raises(DuplicateNameError, match="activation_abs"):
        register_measure("activation_abs")(Largest)
    assert registry.measures.get("activation_abs") is before
    assert Largest.name == ""


def test_taken_name_may_be_replaced_on_purpose() -> None:
    register_measure("activation_abs", force=True)(Largest)
    assert registry.measures.get("activation_abs") is Largest


@pytest.mark.parametrize("wrong", [int, Largest(), lambda view: torch.ones(2)])
def test_what_is_no_measure_class_is_an_error(wrong: object) -> None:
    with pytest.raises(BadCallError, match="'mine' to be a subclass of `Measure`, but got"):
        register_measure("mine")(wrong)  # type: ignore[type-var]
    assert "mine" not in registry.measures


def test_measure_without_compute_is_an_error() -> None:
    class Unfinished(Measure):
        pass

    with pytest.raises(BadCallError, match="to define compute, but Unfinished does not"):
        register_measure("mine")(Unfinished)
    assert "mine" not in registry.measures
