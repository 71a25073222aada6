from __future__ import annotations

import pytest
import torch
from torch import nn

from fgadahat_hooks import registry
from fgadahat_hooks.layers import (
    Conv2dType,
    ConvTranspose2dType,
    EmbeddingType,
    LayerType,
    LinearType,
    layer_type_of,
    refusal_of,
)
from fgadahat_hooks.protection.head_outputs import count_outputs


class MyLinear(nn.Linear):
    """A subclass that does not change the weights."""


class Namesake(nn.Module):
    """Looks like a linear layer by name and weight, but is not one."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(2, 2))


Namesake.__name__ = "Linear"


@pytest.mark.parametrize(
    ("module", "expected"),
    [
        (nn.Linear(2, 3), LinearType),
        (MyLinear(2, 3), LinearType),
        (nn.Conv2d(2, 3, 1), Conv2dType),
        (nn.ConvTranspose2d(2, 3, 1), ConvTranspose2dType),
        (nn.Embedding(2, 3), EmbeddingType),
        (nn.MultiheadAttention(4, 2).out_proj, LinearType),
    ],
)
def test_supported(module: nn.Module, expected: type[LayerType]) -> None:
    assert type(layer_type_of(module)) is expected


@pytest.mark.parametrize(
    "module",
    [
        nn.ReLU(),
        nn.BatchNorm2d(3),
        nn.Sequential(nn.Linear(2, 3)),
        nn.EmbeddingBag(2, 3),
        nn.Bilinear(2, 2, 3),
        nn.LazyLinear(3),
        nn.LazyConv2d(3, 1),
        nn.utils.parametrizations.weight_norm(nn.Linear(2, 3)),
        nn.utils.parametrizations.weight_norm(nn.Conv1d(2, 3, 1)),
        nn.utils.parametrizations.spectral_norm(nn.Conv2d(2, 3, 1)),
        Namesake(),
    ],
    ids=lambda m: type(m).__name__,
)
def test_unsupported(module: nn.Module) -> None:
    assert layer_type_of(module) is None
    assert refusal_of(module) == ""


def test_lazy_layer_is_supported_after_its_first_forward() -> None:
    module = nn.LazyLinear(3)
    module(torch.ones(1, 2))
    kind = layer_type_of(module)
    assert kind is not None
    assert kind.inputs(module) == 2


def test_a_registered_class_takes_precedence_over_its_base_class(monkeypatch: pytest.MonkeyPatch) -> None:
    class Own(LinearType):
        module_class = MyLinear

    monkeypatch.setitem(registry.layer_types._items, "MyLinear", Own)
    assert type(layer_type_of(MyLinear(2, 3))) is Own
    assert type(layer_type_of(nn.Linear(2, 3))) is LinearType


def test_the_defaults_of_a_layer_type(monkeypatch: pytest.MonkeyPatch) -> None:
    """Size attributes are updated, and a head without `reset_parameters` has no outputs to resize."""

    class Own(Namesake):
        out_features = 2

    class OwnType(LinearType):
        module_class = Own
        update_sizes = LayerType.update_sizes

    monkeypatch.setitem(registry.layer_types._items, "Own", OwnType)
    module = Own()
    module.weight = nn.Parameter(torch.ones(5, 2))
    OwnType().update_sizes(module)
    assert module.out_features == 5
    assert OwnType().reset_function(module) is None
    assert count_outputs(nn.Sequential(module), ["0"]) == {}
    assert count_outputs(nn.Sequential(nn.Linear(2, 3)), ["0"]) == {"0": 3}
