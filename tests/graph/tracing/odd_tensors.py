"""Odd models: views, in-place operations, unknown operations."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.graph.tracing.odd_base import VECTOR, Vector, odd


# ------------------------------------------------------------------ in place and views
@odd(VECTOR)
class InPlaceIntoSlice(Vector):
    def forward(self, x: Tensor) -> Tensor:
        h, g = self.a(x), self.b(self.a(x))
        h[:, 1:] += g[:, 1:]
        return self.end(h)


@odd(VECTOR)
class InPlaceChain(Vector):
    def forward(self, x: Tensor) -> Tensor:
        h = self.a(x).relu_().mul_(2.0)
        return self.end(self.b(h).add_(h))


@odd(VECTOR)
class CopyIntoSlices(Vector):
    def forward(self, x: Tensor) -> Tensor:
        out = torch.zeros(x.shape[0], 8)
        h = self.a(x)
        out[:, :4].copy_(h[:, 4:])
        out[:, 4:] = self.b(h)[:, :4]
        return self.end(out)


@odd(VECTOR)
class ZeroAView(Vector):
    def forward(self, x: Tensor) -> Tensor:
        h = self.a(x)
        h[:, :3].zero_()
        return self.end(self.b(h))


@odd(VECTOR)
class FillAView(Vector):
    def forward(self, x: Tensor) -> Tensor:
        h = self.a(x)
        h[:, :3].fill_(1.0)
        return self.end(self.b(h))


@odd(VECTOR)
class WriteThroughAlias(Vector):
    def forward(self, x: Tensor) -> Tensor:
        h = self.a(x)
        h.detach().view(-1)[::3] = 1.0
        h.data[1].fill_(2.0)
        return self.end(self.b(h))


@odd(VECTOR)
class OutArguments(Vector):
    def forward(self, x: Tensor) -> Tensor:
        h, sums = self.a(x), torch.empty(x.shape[0], 8)
        torch.add(h, 1.0, out=sums)
        joined = torch.zeros(x.shape[0], 16)
        torch.cat([h, sums], dim=1, out=joined)
        return self.end(self.b(joined[:, 8:]))


@odd(VECTOR)
class ForeachOps(Vector):
    def forward(self, x: Tensor) -> Tensor:
        h, g = self.a(x), self.b(self.a(x))
        torch._foreach_add_([h, g], 1.0)
        return self.end(self.b(h) + g)


@odd(VECTOR)
class OverlappingWindows(Vector):
    def forward(self, x: Tensor) -> Tensor:
        h = F.pad(self.a(x), (0, 2)).contiguous()
        windows = h.as_strided((x.shape[0], 4, 4), (10, 2, 1))
        windows.mul_(1.0)
        return self.end(self.b(windows.sum(2).repeat(1, 2)) + h[:, :8])


@odd(VECTOR)
class Reinterpreted(Vector):
    def forward(self, x: Tensor) -> Tensor:
        h = self.a(x)
        pair = torch.view_as_complex(h.view(-1, 4, 2)) * (1 + 2j)
        bits = self.b(h).view(torch.int32).view(torch.float32)
        return self.end(torch.view_as_real(pair).flatten(1) + bits)


@odd(VECTOR)
class Resized(Vector):
    def forward(self, x: Tensor) -> Tensor:
        h = torch.relu(self.a(x))
        with torch.no_grad():
            g = h.clone().resize_(x.shape[0] + 3, 8)
            g[x.shape[0] :] = 1.0
        return self.end(self.b(g[-x.shape[0] :]) + h)


@odd(VECTOR)
class NumberInPlace(Vector):
    def forward(self, x: Tensor) -> Tensor:
        h = self.a(x)
        h.clamp_(min=0.1)
        g = self.b(h).clamp(0.0, 6.0)
        return self.end(g.masked_fill(g > 3, 0.0) + torch.where(g > 1, g, torch.zeros(())))


# ------------------------------------------------------------------ scattering, unknown operations
@odd(VECTOR)
class Scattered(Vector):
    def forward(self, x: Tensor) -> Tensor:
        h = self.a(x)
        out = torch.zeros_like(h).scatter_(1, h.argsort(1), 1.0)
        out.index_put_((torch.tensor([0]), torch.tensor([1])), h[0, 2])
        rows = torch.zeros_like(h).index_add_(0, torch.tensor([1, 0]), self.b(h))
        h.masked_scatter_(h > 0, torch.ones_like(h))
        return self.end(self.b(out) + rows + self.b(h))


@torch.library.custom_op("fgadahat_tests::fill_", mutates_args=("x",), schema="(Tensor(a!) x) -> ()")
def _fill(x: Tensor) -> None:
    x.fill_(1.0)


@torch.library.custom_op("fgadahat_tests::shift", mutates_args=(), schema="(Tensor x) -> Tensor")
def _shift(x: Tensor) -> Tensor:
    return x + 1.0


@odd(VECTOR)
class ForeignOps(Vector):
    def forward(self, x: Tensor) -> Tensor:
        h = self.a(x)
        g = self.b(_shift(h))
        _fill(h)
        return self.end(self.b(h) + g)


@odd(VECTOR)
class SparseAndNested(Vector):
    def forward(self, x: Tensor) -> Tensor:
        h = self.a(x)
        dense = (h.to_sparse() * 2).to_dense()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            nested = torch.nested.as_nested_tensor([h[0], h[1] + 1.0]).to_padded_tensor(0.0)
        return self.end(self.b(dense) + self.b(nested) + h)


@odd(VECTOR)
class Reductions(Vector):
    def forward(self, x: Tensor) -> Tensor:
        h = self.a(x)
        parts = [h.cumsum(1), h.sort(1).values, h.topk(8, 1)[0], h.max(1, keepdim=True)[0] + h, h.var(1)[:, None] + h]
        outer = torch.bmm(h[:, :, None], self.b(h)[:, None, :]).sum(2)
        return self.end(self.b(sum(parts)) + outer + h.pow(2) + (h @ h.t()) @ h + torch.maximum(h, h * 2))


@odd(VECTOR)
class DirectForward(Vector):
    """Calls a layer's `forward`, so that its hooks do not run."""

    def forward(self, x: Tensor) -> Tensor:
        return self.end(self.b.forward(self.a(x)).relu())


@odd(VECTOR)
class PermutedRows(Vector):
    def forward(self, x: Tensor) -> Tensor:
        h = self.a(x)
        return self.end(F.linear(h, self.b.weight[[1, 0, 2, 3, 4, 5, 6, 7]]) + self.b(h))


@odd(VECTOR)
class ExpandedColumn(Vector):
    def forward(self, x: Tensor) -> Tensor:
        h = self.a(x)
        column = self.b.weight[:, :1].t().expand(8, 8)
        return self.end(h @ column + self.b(h))


@odd(VECTOR)
class StoredTransposed(Vector):
    """The parameter itself is not row-major."""

    def __init__(self) -> None:
        super().__init__()
        self.b = nn.Linear(8, 8)
        self.b.weight = nn.Parameter(torch.randn(8, 8).t())

    def forward(self, x: Tensor) -> Tensor:
        return self.end(self.b(self.a(x)).relu() + F.linear(self.a(x), self.b.weight))


@odd(VECTOR)
class BufferState(Vector):
    memory: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("memory", torch.zeros(2, 8))

    def forward(self, x: Tensor) -> Tensor:
        h = self.a(x)
        out = self.end(self.b(self.memory) + h)
        self.memory.copy_(h)
        return out


@odd(VECTOR)
class WritesItsInput(Vector):
    def forward(self, x: Tensor) -> Tensor:
        x.mul_(2.0)
        return self.end(self.b(self.a(x).relu()))
