"""Where units and inputs lie in the weight of each convolution, found by gradients of the convolution itself."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from fgadahat_hooks.layers import LayerType, layer_type_of

CLASSES: dict[str, tuple[type[Any], int]] = {
    "Conv1d": (nn.Conv1d, 1),
    "Conv2d": (nn.Conv2d, 2),
    "Conv3d": (nn.Conv3d, 3),
    "ConvTranspose1d": (nn.ConvTranspose1d, 1),
    "ConvTranspose2d": (nn.ConvTranspose2d, 2),
    "ConvTranspose3d": (nn.ConvTranspose3d, 3),
}
SIDE = {1: 9, 2: 7, 3: 5}
"""Size of each spatial axis of the inputs, large enough for any kernel drawn."""


@st.composite
def convolutions(draw: st.DrawFn) -> nn.Module:
    cls, axes = CLASSES[draw(st.sampled_from(sorted(CLASSES)))]
    groups = draw(st.integers(1, 3))
    inputs, units = (groups * draw(st.integers(1, 3)) for _ in range(2))
    kernel = tuple(draw(st.integers(1, 2 if axes == 3 else 3)) for _ in range(axes))
    stride, padding, dilation = (draw(st.integers(low, 2)) for low in (1, 0, 1))
    options = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    module: nn.Module = cls(inputs, units, kernel, bias=draw(st.booleans()), dtype=torch.float64, **options)
    return module


def kind_of(module: nn.Module) -> LayerType:
    kind = layer_type_of(module)
    assert kind is not None
    return kind


def axes_of(module: nn.Module) -> int:
    return module.get_parameter("weight").dim() - 2


def samples(module: nn.Module, count: int, seed: int) -> Tensor:
    spatial = [SIDE[axes_of(module)]] * axes_of(module)
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, int(module.in_channels), *spatial, generator=generator, dtype=torch.float64)  # type: ignore[arg-type]


def reads(module: nn.Module) -> Tensor:
    """Find by gradients which inputs each unit reads: `(units, inputs)`, bool."""
    seen = []
    for unit in range(kind_of(module).units(module)):
        x = torch.ones_like(samples(module, 1, 0)).requires_grad_()
        module(x)[0, unit].sum().backward()
        assert x.grad is not None
        seen.append(x.grad[0].abs().flatten(1).sum(1) > 0)
    return torch.stack(seen)


@pytest.mark.parametrize("name", CLASSES)
def test_each_class_has_its_own_type(name: str) -> None:
    cls, axes = CLASSES[name]
    kind = kind_of(cls(2, 3, 1))
    assert type(kind).__name__ == f"{name}Type"
    assert (kind.module_class, kind.unit_axis, kind.shorthand) == (cls, -1 - axes, "all-conv")


@settings(deadline=None, max_examples=80)
@given(module=convolutions())
def test_layout_agrees_with_the_convolution_itself(module: nn.Module) -> None:
    kind, weight = kind_of(module), module.get_parameter("weight")
    nn.init.ones_(weight)
    connected = reads(module)
    units, inputs = (torch.arange(1.0, n + 1, dtype=torch.float64) for n in connected.shape)
    own = kind.unit_view(module, units).expand(weight.shape).reshape(-1)
    fed = kind.input_view(module, inputs).expand(weight.shape).reshape(-1)
    area = weight[0, 0].numel()
    pairs = sorted(zip(own.tolist(), fed.tolist(), strict=True))
    assert pairs == sorted((float(i + 1), float(k + 1)) for i, k in connected.nonzero().tolist() for _ in range(area))
    assert torch.equal(kind.sum_by_input(module, weight), connected.sum(0) * float(area))
    assert torch.equal(kind.sum_by_unit(module, weight), connected.sum(1) * float(area))


@settings(deadline=None, max_examples=80)
@given(module=convolutions(), seed=st.integers(0, 99))
def test_sums_equal_those_of_a_loop(module: nn.Module, seed: int) -> None:
    kind, weight = kind_of(module), module.get_parameter("weight")
    x = torch.randn(weight.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    for sums, view, count in (
        (kind.sum_by_unit, kind.unit_view, kind.units(module)),
        (kind.sum_by_input, kind.input_view, kind.inputs(module)),
    ):
        indices = view(module, torch.arange(count)).expand(weight.shape).flatten().tolist()
        expected = [0.0] * count
        for index, value in zip(indices, x.flatten().tolist(), strict=True):
            expected[index] += value
        torch.testing.assert_close(sums(module, x), torch.tensor(expected, dtype=x.dtype), rtol=1e-12, atol=1e-12)


@settings(deadline=None, max_examples=80)
@given(module=convolutions(), seed=st.integers(0, 99))
def test_zeroing_an_input_in_the_weight_equals_zeroing_its_channel(module: nn.Module, seed: int) -> None:
    kind, x = kind_of(module), samples(module, 2, seed)
    on = torch.randint(0, 2, (x.shape[1],), generator=torch.Generator().manual_seed(seed)).double()
    expected = module(x * on.view(-1, *[1] * axes_of(module)))
    with torch.no_grad():
        module.get_parameter("weight").mul_(kind.input_view(module, on))
    torch.testing.assert_close(module(x), expected, rtol=1e-12, atol=1e-12)


@settings(deadline=None, max_examples=80)
@given(module=convolutions(), seed=st.integers(0, 99))
def test_zeroing_a_unit_in_the_weight_equals_its_gate(module: nn.Module, seed: int) -> None:
    kind, x = kind_of(module), samples(module, 2, seed)
    on = torch.randint(0, 2, (kind.units(module),), generator=torch.Generator().manual_seed(seed)).double()
    output = module(x)
    expected = output * kind.output_view(on, output)
    with torch.no_grad():
        module.get_parameter("weight").mul_(kind.unit_view(module, on))
        if module.bias is not None:
            module.get_parameter("bias").mul_(on)
    torch.testing.assert_close(module(x), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", CLASSES)
def test_sizes_of_a_grouped_convolution(name: str) -> None:
    module = CLASSES[name][0](6, 9, 3, groups=3)
    assert (kind_of(module).units(module), kind_of(module).inputs(module)) == (9, 6)


@pytest.mark.parametrize("name", CLASSES)
@pytest.mark.parametrize("groups", [1, 3])
def test_sizes_are_updated_after_pruning(name: str, groups: int) -> None:
    """One whole group of a grouped convolution is removed; one unit and two inputs of another one."""
    module = CLASSES[name][0](6, 9, 1, groups=groups)
    kind, weight = kind_of(module), module.get_parameter("weight")
    rows, width = weight.shape[:2]
    pruned = (
        weight[rows // 3 :] if groups > 1 else weight.narrow(kind.weight_axis, 1, 8).narrow(1 - kind.weight_axis, 2, 4)
    )
    module.weight = nn.Parameter(pruned.detach().clone())
    module.bias = None
    kind.update_sizes(module)
    assert (module.out_channels, module.in_channels, module.groups) == ((6, 4, 2) if groups > 1 else (8, 4, 1))
    assert module(samples(module, 1, 0).float()).shape[1] == module.out_channels
    kind.update_sizes(module)
    assert (kind.units(module), kind.inputs(module)) == (module.out_channels, module.in_channels)
    assert width == weight.shape[1]


@pytest.mark.parametrize("name", CLASSES)
def test_gate_works_without_a_batch_axis(name: str) -> None:
    cls, axes = CLASSES[name]
    output, mask = torch.ones(2, *[3] * axes), torch.tensor([0.0, 1.0])
    gated = output * kind_of(cls(2, 2, 1)).output_view(mask, output)
    assert gated.flatten(1).sum(1).tolist() == [0.0, 3.0**axes]
