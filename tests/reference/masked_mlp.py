"""Linear layers with their masks before the ReLU, and a head, as plain tensors."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from tests.reference.recorded import LAYERS, Recorded
from tests.reference.recorded_network import mask_after


@dataclass(frozen=True)
class MaskedMlp:
    """Weights and biases, masks, and the head's weight and bias."""

    layers: list[tuple[Tensor, Tensor]]
    masks: list[Tensor]
    head: tuple[Tensor, Tensor]

    def pre_activations(self, x: Tensor) -> list[Tensor]:
        """Return `z` of every layer, for one sample."""
        found = []
        for (weight, bias), mask in zip(self.layers, self.masks, strict=True):
            found.append(weight @ x + bias)
            x = torch.relu(found[-1] * mask)
        return found


def recorded_mlp(data: Recorded) -> MaskedMlp:
    """Return the network of a recorded set after its step."""
    layers = [(data.tensor(f"t2_after/W{i}"), data.tensor(f"t2_after/b{i}")) for i in LAYERS]
    head = (data.tensor("t2_after/headW2"), data.tensor("t2_after/headb2"))
    return MaskedMlp(layers, [mask_after(data, i) for i in LAYERS], head)
