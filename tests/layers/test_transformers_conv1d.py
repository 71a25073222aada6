from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from fgadahat_hooks.layers import LinearType, TransformersConv1DType, layer_type_of

KIND = TransformersConv1DType()


@pytest.fixture
def layer() -> nn.Module:
    """Return a layer with three inputs and two units."""
    library: Any = pytest.importorskip("transformers.pytorch_utils")
    module: nn.Module = library.Conv1D(2, 3)
    nn.init.normal_(module.get_parameter("bias"))
    return module


def equivalent_linear(layer: nn.Module) -> nn.Linear:
    """Return the linear layer that computes the same function."""
    linear = nn.Linear(3, 2)
    with torch.no_grad():
        linear.weight.copy_(layer.get_parameter("weight").t())
        linear.bias.copy_(layer.get_parameter("bias"))
    return linear


def test_it_is_the_transpose_of_a_linear_layer(layer: nn.Module) -> None:
    linear, reference, x = equivalent_linear(layer), LinearType(), torch.randn(4, 3)
    torch.testing.assert_close(layer(x), linear(x))
    assert type(layer_type_of(layer)) is TransformersConv1DType
    assert (KIND.units(layer), KIND.inputs(layer)) == (2, 3)
    own, inputs, values = torch.randn(2), torch.randn(3), torch.randn(3, 2)
    assert torch.equal(KIND.unit_view(layer, own), reference.unit_view(linear, own).t())
    assert torch.equal(KIND.input_view(layer, inputs), reference.input_view(linear, inputs).t())
    torch.testing.assert_close(KIND.sum_by_unit(layer, values), reference.sum_by_unit(linear, values.t()))
    torch.testing.assert_close(KIND.sum_by_input(layer, values), reference.sum_by_input(linear, values.t()))


def test_a_subclass_is_recognised_and_another_class_of_the_name_is_not(layer: nn.Module) -> None:
    own: Any = type("Own", (type(layer),), {})
    namesake: Any = type("Conv1D", (nn.Module,), {})
    other = namesake()
    other.weight = nn.Parameter(torch.ones(3, 2))
    assert type(layer_type_of(own(2, 3))) is TransformersConv1DType
    assert KIND.own_class(own(2, 3)) is type(layer)
    assert layer_type_of(other) is None


def test_sizes_are_updated_and_parameters_initialised(layer: Any) -> None:
    layer.weight, layer.bias = nn.Parameter(torch.zeros(30, 50)), nn.Parameter(torch.ones(50))
    KIND.update_sizes(layer)
    reset = KIND.reset_function(layer)
    assert reset is not None
    reset()
    assert layer(torch.randn(2, 30)).shape == (2, 50)
    assert 0.015 < float(layer.weight.detach().std()) < 0.025
    assert not layer.bias.any()
