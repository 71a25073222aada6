"""Odd models: control flow, autograd modes, state that outlives a forward."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from tests.graph.tracing.odd_base import VECTOR, Vector, odd


# ------------------------------------------------------------------ control flow and state
@odd(VECTOR)
class CalledThrice(Vector):
    def forward(self, x: Tensor) -> Tensor:
        h = self.a(x)
        for _ in range(3):
            h = self.b(h).relu() + h
        return self.end(h)


@odd(VECTOR)
class Checkpointed(Vector):
    def forward(self, x: Tensor) -> Tensor:
        h = checkpoint(self.a, x, use_reentrant=False)
        return self.end(checkpoint(lambda t: self.b(t).relu(), h, use_reentrant=False))


@odd(VECTOR)
class InferenceInside(Vector):
    def forward(self, x: Tensor) -> Tensor:
        with torch.inference_mode():
            h = self.b(self.a(x).relu().reshape(-1, 8))
            h[:, :2] += 1.0
        return self.end(h)


@odd(VECTOR)
class AutocastInside(Vector):
    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            h = self.b(self.a(x).relu())
        return self.end(h.float())


class _Double(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x * 2

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return grad * 2


@odd(VECTOR)
class CustomFunction(Vector):
    def forward(self, x: Tensor) -> Tensor:
        return self.end(self.b(_Double.apply(self.a(x))))


@odd(VECTOR)
class Cache(Vector):
    """The first forward fills a cache that later ones read."""

    cached: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        h = self.a(x)
        if self.cached is None:
            self.cached = torch.zeros_like(h)
        out = self.end(self.b(self.cached) + h)
        self.cached = h + self.cached
        return out


@odd(VECTOR)
class CacheInClosure(Vector):
    def __init__(self) -> None:
        super().__init__()
        self.kept: list[Any] = [torch.zeros(1, 8)]

    def forward(self, x: Tensor) -> Tensor:
        h = self.a(x)
        out = self.end(self.b(self.kept[-1]) + h)
        self.kept[:] = [h[:1].clone()]
        return out


@odd(VECTOR)
class FilledUnseen(Vector):
    """Zeros that something other than a tensor operation writes into."""

    def forward(self, x: Tensor) -> Tensor:
        out = torch.zeros(x.shape[0], 8)
        out.view(-1).numpy()[:] = 1.0
        return self.end(self.b(out) + self.a(x))


@odd(VECTOR)
class ZeroFactor(Vector):
    """Numbers that are zero in the first forward only."""

    factor = 0.0

    def forward(self, x: Tensor) -> Tensor:
        h = self.a(x)
        out = self.end(self.b(h.relu() + (x.repeat(1, 2) * self.factor)) + self.factor)
        self.factor = 1.0
        return out


@odd(VECTOR)
class Quotient(Vector):
    def forward(self, x: Tensor) -> Tensor:
        h = self.a(x)
        return self.end(self.b(h / (1 + h.abs())) / h.norm(dim=1, keepdim=True).clamp_min(1e-6))


@odd(VECTOR)
class DropoutAndLists(Vector):
    def __init__(self) -> None:
        super().__init__()
        self.drop = nn.Dropout(0.5)

    def forward(self, x: Tensor) -> dict[str, Any]:
        h = self.drop(self.a(x))
        return {"all": [self.head(self.b(h)), Result(h * 1.0)], "n": 3}


@dataclass
class Result:
    features: Tensor


@odd(VECTOR)
class Conditional(Vector):
    def forward(self, x: Tensor) -> Tensor:
        h = self.a(x)
        return self.end(torch.cond(x.abs().sum() > 0, lambda t: t + 1.0, lambda t: t - 1.0, (h,)) + self.b(h))


@odd(VECTOR)
class Vmapped(Vector):
    def forward(self, x: Tensor) -> Tensor:
        h = torch.vmap(lambda row: self.a(row).relu())(x)
        return self.end(self.b(h))


@odd(VECTOR)
class ReplacedParameters(Vector):
    """The layer runs with other tensors than its own parameters."""

    def forward(self, x: Tensor) -> Tensor:
        twice = {k: v * 2 for k, v in self.a.named_parameters()}
        return self.end(self.b(torch.func.functional_call(self.a, twice, (x,))))
