"""Small models in which one rule of tracing decides: each leaks as soon as that rule is left out."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.zoo.sweep.odd_base import MAP, Net, odd
from tests.zoo.sweep.subject import normal


@odd(normal(4))
class ForeignBias(nn.Module):
    """A layer's weight used by function with a bias that is not the layer's."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(4, 8), nn.Linear(8, 8, bias=False)
        self.shift, self.head = nn.Parameter(torch.randn(8)), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(F.linear(self.a(x).relu(), self.b.weight, self.shift))
        return out


@odd(MAP)
class AwayFromZero(Net):
    """Bounds and padding that are not zero, beside what stays zero, before one layer."""

    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Conv2d(28, 8, 1)

    def body(self, x: Tensor) -> Tensor:
        h = torch.cat([x.clamp(min=0.1), F.pad(x, (0, 0, 0, 0, 0, 4), value=0.5), x.relu()], 1)
        out: Tensor = self.mix(h).relu()
        return out


@odd(normal(8, 8))
class NormOverSteps(nn.Module):
    """A BatchNorm over the steps of a sequence that has as many steps as the layer in front has units."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.norm = nn.Linear(8, 8), nn.BatchNorm1d(8)
        self.b, self.head = nn.Linear(8, 8), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.b(self.norm(self.a(x)).relu()).relu().mean(1))
        return out


@odd(normal(4))
class RunningSize(nn.Module):
    """A buffer outside norms that training changes and evaluation uses."""

    size: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.head = nn.Linear(4, 8), nn.Linear(8, 8), nn.Linear(8, 4)
        self.register_buffer("size", torch.ones(8))

    def forward(self, x: Tensor) -> Tensor:
        h = self.a(x).tanh()
        if self.training:
            self.size.lerp_(h.detach().abs().mean(0), 0.1)
        out: Tensor = self.head(self.b(h * self.size).relu())
        return out
