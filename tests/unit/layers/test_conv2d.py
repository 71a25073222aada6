from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from fgadahat_hooks.layers import Conv2dType

KIND = Conv2dType()


@st.composite
def convolutions(draw: st.DrawFn) -> nn.Conv2d:
    groups = draw(st.integers(1, 3))
    inputs, units = (groups * draw(st.integers(1, 3)) for _ in range(2))
    kernel = draw(st.tuples(st.integers(1, 3), st.integers(1, 3)))
    stride, padding, dilation = (draw(st.integers(low, 2)) for low in (1, 0, 1))
    return nn.Conv2d(
        inputs, units, kernel, stride, padding, dilation, groups, bias=draw(st.booleans()), dtype=torch.float64
    )


def reads(module: nn.Conv2d) -> Tensor:
    """Ask the convolution itself which inputs each unit reads: `(units, inputs)`, bool."""
    seen = []
    for unit in range(module.out_channels):
        image = torch.ones(1, module.in_channels, 9, 9, dtype=torch.float64, requires_grad=True)
        module(image)[0, unit].sum().backward()
        assert image.grad is not None
        seen.append(image.grad[0].abs().sum((1, 2)) > 0)
    return torch.stack(seen)


@settings(deadline=None, max_examples=40)
@given(module=convolutions())
def test_layout_agrees_with_the_convolution_itself(module: nn.Conv2d) -> None:
    nn.init.ones_(module.weight)
    numbers = torch.arange(1.0, module.in_channels + 1, dtype=torch.float64)
    view = KIND.input_view(module, numbers).expand(module.weight.shape)
    connected = reads(module)
    for unit in range(module.out_channels):
        assert sorted(set(view[unit].flatten().tolist())) == numbers[connected[unit]].tolist()
    area = module.weight[0, 0].numel()
    assert torch.equal(KIND.sum_by_input(module, module.weight), connected.sum(0) * float(area))
    assert torch.equal(KIND.sum_by_unit(module, module.weight), connected.sum(1) * float(area))


@settings(deadline=None, max_examples=40)
@given(module=convolutions(), seed=st.integers(0, 99))
def test_switching_an_input_off_in_the_weight_is_switching_off_its_channel(module: nn.Conv2d, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    on = torch.randint(0, 2, (module.in_channels,), generator=generator).double()
    image = torch.randn(2, module.in_channels, 9, 9, generator=generator, dtype=torch.float64)
    expected = module(image * on[:, None, None])
    with torch.no_grad():
        module.weight.mul_(KIND.input_view(module, on))
    torch.testing.assert_close(module(image), expected, rtol=1e-12, atol=1e-12)


@settings(deadline=None, max_examples=40)
@given(module=convolutions(), seed=st.integers(0, 99))
def test_switching_a_unit_off_in_the_weight_is_its_gate(module: nn.Conv2d, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    on = torch.randint(0, 2, (module.out_channels,), generator=generator).double()
    image = torch.randn(2, module.in_channels, 9, 9, generator=generator, dtype=torch.float64)
    output = module(image)
    expected = output * KIND.gate_view(on, output)
    with torch.no_grad():
        module.weight.mul_(KIND.own_view(module, on))
        if module.bias is not None:
            module.bias.mul_(on)
    torch.testing.assert_close(module(image), expected, rtol=1e-12, atol=1e-12)


def test_sizes_of_a_grouped_convolution() -> None:
    module = nn.Conv2d(6, 9, 3, groups=3)
    assert KIND.units(module) == 9
    assert KIND.inputs(module) == 6


def test_gate_works_without_a_batch_axis() -> None:
    output, mask = torch.ones(2, 4, 5), torch.tensor([0.0, 1.0])
    gated = output * KIND.gate_view(mask, output)
    assert gated.sum((1, 2)).tolist() == [0.0, 20.0]
