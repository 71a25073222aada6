"""Odd models: weights used functionally, transformed weights, layers whose class overrides `forward`."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.graph.tracing.odd_base import IMAGE, VECTOR, Image, Vector, odd


# ------------------------------------------------------------------ weights used functionally
@odd(VECTOR)
class Functional(Vector):
    def forward(self, x: Tensor) -> Tensor:
        h = F.linear(x, self.a.weight, self.a.bias).relu()
        return self.end(h @ self.b.weight.t() + self.b.bias)


@odd(VECTOR)
class SliceOfWeight(Vector):
    def forward(self, x: Tensor) -> Tensor:
        h = self.a(x)
        top = F.linear(h[:, :5], self.b.weight[:4, :5], self.b.bias[:4])
        low = F.linear(h[:, 5:], self.b.weight[4:, 5:])
        return self.end(torch.cat([top, low], 1))


@odd(VECTOR)
class ModuleAndFunction(Vector):
    def forward(self, x: Tensor) -> Tensor:
        h = self.a(x)
        return self.end(self.b(h) + F.linear(h.flip(1), self.b.weight))


@odd(VECTOR)
class BiasElsewhere(Vector):
    def forward(self, x: Tensor) -> Tensor:
        return self.end(self.b(self.a(x).relu() + self.b.bias))


@odd(VECTOR)
class ScaledWeight(Vector):
    """The weight is transformed before it is used, the bias is not."""

    def forward(self, x: Tensor) -> Tensor:
        h = self.a(x)
        return self.end(self.b(h) + F.linear(h, self.b.weight / self.b.weight.norm(), self.b.bias))


@odd(VECTOR)
class TransposedWeight(Vector):
    def forward(self, x: Tensor) -> Tensor:
        h = self.a(x)
        return self.end(self.b(h) + h @ self.b.weight)


@odd(IMAGE)
class SwappedKernel(Image):
    def forward(self, x: Tensor) -> Tensor:
        h = self.b(self.a(x))
        return self.end(F.conv2d(h, self.b.weight.transpose(0, 1), padding=1))


@odd(IMAGE)
class FunctionalConv(Image):
    def forward(self, x: Tensor) -> Tensor:
        h = F.conv2d(x, self.a.weight, self.a.bias, padding=1).relu()
        return self.end(F.conv2d(h, self.b.weight, padding=1).relu())


class StandardisedConv2d(nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight - self.weight.mean()
        return F.conv2d(x, weight / weight.std(), self.bias, padding=1)


@odd(IMAGE)
class WeightStandardised(Image):
    def __init__(self) -> None:
        super().__init__()
        self.b = StandardisedConv2d(8, 8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.end(self.b(self.a(x).relu()).relu())


class NormalisedLinear(nn.Linear):
    """Mixes its own units."""

    def forward(self, x: Tensor) -> Tensor:
        return F.normalize(super().forward(x), dim=-1)


class ActivatedLinear(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return F.gelu(super().forward(x))


class KeepingLinear(nn.Linear):
    """Keeps its output, which the gate never sees."""

    def forward(self, x: Tensor) -> Tensor:
        self.kept = super().forward(x)
        return self.kept


@odd(VECTOR)
class MixingSubclass(Vector):
    def __init__(self) -> None:
        super().__init__()
        self.a = NormalisedLinear(4, 8)

    def forward(self, x: Tensor) -> Tensor:
        return self.end(self.b(self.a(x)))


@odd(VECTOR)
class ActivatedSubclass(Vector):
    def __init__(self) -> None:
        super().__init__()
        self.a = ActivatedLinear(4, 8)

    def forward(self, x: Tensor) -> Tensor:
        return self.end(self.b(self.a(x)))


@odd(VECTOR)
class KeepingSubclass(Vector):
    def __init__(self) -> None:
        super().__init__()
        self.a = KeepingLinear(4, 8)

    def forward(self, x: Tensor) -> Tensor:
        h = self.a(x)
        return self.end(self.b(h) + self.a.kept)
