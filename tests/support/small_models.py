"""Models of a few dozen units, each with one property that tests need."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

SHAPE = (2, 6, 6)
"""Channels, height and width of their inputs."""


def batch(count: int = 8, seed: int = 1) -> tuple[Tensor, Tensor]:
    """Return `(count, *SHAPE)` inputs and `(count,)` labels of three classes."""
    return torch.randn(count, *SHAPE, generator=torch.Generator().manual_seed(seed)), torch.arange(count) % 3


class Net(nn.Module):
    """Convolutions with norms, a hidden layer, a scale and a buffer that belong to no layer, and a head."""

    counts: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(2, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.conv2, self.bn2 = nn.Conv2d(8, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.hidden, self.head = nn.Linear(8 * 9, 16), nn.Linear(16, 3)
        self.scale = nn.Parameter(torch.rand(16) + 0.5)
        self.register_buffer("counts", torch.zeros(16))

    def forward(self, x: Tensor) -> Tensor:
        h = F.max_pool2d(F.relu(self.bn1(self.conv1(x))), 2)
        h = F.relu(self.bn2(self.conv2(h)))
        h = F.relu(self.hidden(h.flatten(1))) * self.scale
        if self.training:
            self.counts += h.detach().mean(0)
        logits: Tensor = self.head(h)
        return logits


class Backwards(nn.Module):
    """Registers its layers in reverse of the order in which they run; no two have the same size."""

    def __init__(self) -> None:
        super().__init__()
        self.last = nn.Linear(11, 3)
        self.second = nn.Linear(7, 11)
        self.first = nn.Linear(72, 7)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.last(F.relu(self.second(F.relu(self.first(x.flatten(1))))))
        return logits


class Functional(nn.Module):
    """Uses the weights of its hidden layer itself, so that the layer's own forward never runs."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden, self.head = nn.Linear(72, 16), nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(F.relu(F.linear(x.flatten(1), self.hidden.weight, self.hidden.bias)))
        return logits


class TwoHeads(nn.Module):
    """Returns a dict of two logits."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden, self.left, self.right = nn.Linear(72, 16), nn.Linear(16, 3), nn.Linear(16, 5)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        h = F.relu(self.hidden(x.flatten(1)))
        return {"left": self.left(h), "right": self.right(h)}
