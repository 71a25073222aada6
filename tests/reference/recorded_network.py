"""The network for which the measures were recorded, as a module."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.reference.recorded import LAYERS, Recorded


class RecordedNetwork(nn.Module):
    """Three layers with their masks before the ReLU, and a head; weights after the recorded step."""

    def __init__(self, data: Recorded) -> None:
        super().__init__()
        for i in LAYERS:
            self.add_module(f"fc{i}", _linear(data.tensor(f"t2_after/W{i}"), data.tensor(f"t2_after/b{i}")))
            self.register_buffer(f"mask{i}", mask_after(data, i))
        self.head = _linear(data.tensor("t2_after/headW2"), data.tensor("t2_after/headb2"))

    def forward(self, x: Tensor) -> Tensor:
        for i in LAYERS:
            x = F.relu(self.get_submodule(f"fc{i}")(x) * self.get_buffer(f"mask{i}"))
        logits: Tensor = self.head(x)
        return logits


def mask_after(data: Recorded, i: int) -> Tensor:
    """Return the training mask with the embedding after the step, at the recorded scale."""
    return torch.sigmoid(data.settings["anneal_scalar_upstream"] * data.tensor(f"t2_after/e{i}"))


def _linear(weight: Tensor, bias: Tensor) -> nn.Linear:
    module = nn.Linear(weight.shape[1], weight.shape[0], dtype=weight.dtype)
    module.weight.data, module.bias.data = weight.clone(), bias.clone()
    return module
