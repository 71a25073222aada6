from __future__ import annotations

import torch
from torch import nn

from fgadahat_hooks.layers import LinearType

KIND, LAYER = LinearType(), nn.Linear(3, 2)


def test_sizes() -> None:
    assert KIND.units(LAYER) == 2
    assert KIND.inputs(LAYER) == 3


def test_views_broadcast_over_the_weight() -> None:
    own, inputs = torch.tensor([1.0, 2.0]), torch.tensor([10.0, 20.0, 30.0])
    total = KIND.unit_view(LAYER, own) + KIND.input_view(LAYER, inputs)
    assert total.tolist() == [[11.0, 21.0, 31.0], [12.0, 22.0, 32.0]]


def test_sums() -> None:
    x = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
    assert KIND.sum_by_unit(LAYER, x).tolist() == [6.0, 15.0]
    assert KIND.sum_by_input(LAYER, x).tolist() == [5.0, 7.0, 9.0]


def test_the_gate_multiplies_the_last_axis_of_tokens() -> None:
    output, mask = torch.ones(4, 5, 2), torch.tensor([0.0, 1.0])
    gated = output * KIND.output_view(mask, output)
    assert (gated[..., 0] == 0).all()
    assert (gated[..., 1] == 1).all()
