"""The networks. Each ends in a head that every task has for itself."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import nn


def mlp(*sizes: int, width: float = 1.0, norm: bool = False) -> nn.Sequential:
    """Return fully connected layers with ReLU between them; the last one is the head.

    Args:
        sizes: Inputs, hidden layers and outputs.
        width: Part of each hidden layer's units to have.
        norm: A BatchNorm between each hidden layer and its ReLU.
    """
    inside = [max(1, round(width * size)) for size in sizes[1:-1]]
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise([sizes[0], *inside]):
        layers += [nn.Linear(inputs, outputs), *([nn.BatchNorm1d(outputs)] if norm else []), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(inside[-1], sizes[-1]))


def cnn(classes: int, width: float = 1.0) -> nn.Sequential:
    """Return two convolutions of 32 and 64 channels, a layer of 64 units and a head, for images of 28x28."""
    first, second, third = (max(1, round(width * size)) for size in (32, 64, 64))
    return nn.Sequential(
        nn.Conv2d(1, first, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(first, second, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(second * 49, third),
        nn.ReLU(),
        nn.Linear(third, classes),
    )


class ThreeChannels(nn.Module):
    """torchvision's ResNet-18 on grey images: they are repeated to three channels."""

    def __init__(self, classes: int) -> None:
        """Build it without pretrained weights."""
        super().__init__()
        from torchvision.models import resnet18

        self.body = resnet18(weights=None, num_classes=classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the logits of images `(batch, 1, height, width)`."""
        logits: torch.Tensor = self.body(x.expand(-1, 3, -1, -1))
        return logits


def head_name(model: nn.Module) -> str:
    """Return the dotted name of the last linear layer."""
    name: str = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)][-1]
    return name
