"""Small models, each with one thing that tracing must get right; `MODELS` names them all.

Every model takes `(2, 4)` or `(2, 3, 8, 8)` inputs, ends in a layer named `head`, and is called by `INPUTS`.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

VECTOR = (2, 4)
IMAGE = (2, 3, 8, 8)
TOKENS = (2, 5, 8)
MODELS: dict[str, tuple[type[nn.Module], tuple[int, ...]]] = {}


def odd(shape: tuple[int, ...]) -> Callable[[type[nn.Module]], type[nn.Module]]:
    def add(cls: type[nn.Module]) -> type[nn.Module]:
        MODELS[cls.__name__] = (cls, shape)
        return cls

    return add


class Vector(nn.Module):
    """Two layers of 8 units and a head; subclasses say what happens between."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(4, 8)
        self.b = nn.Linear(8, 8)
        self.head = nn.Linear(8, 3)


class Image(nn.Module):
    """Two convolutions of 8 channels and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv2d(3, 8, 3, padding=1)
        self.b = nn.Conv2d(8, 8, 3, padding=1)
        self.head = nn.Linear(8, 3)

    def end(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(x.mean((2, 3)))
        return out


# ------------------------------------------------------------------ in place and views
@odd(VECTOR)
class InPlaceIntoSlice(Vector):
    def forward(self, x: Tensor) -> Tensor:
        h, g = self.a(x), self.b(self.a(x))
        h[:, 1:] += g[:, 1:]
        return self.head(h)


@odd(VECTOR)
class InPlaceChain(Vector):
    def forward(self, x: Tensor) -> Tensor:
        h = self.a(x).relu_().mul_(2.0)
        return self.head(self.b(h).add_(h))


@odd(VECTOR)
class CopyIntoSlices(Vector):
    def forward(self, x: Tensor) -> Tensor:
        out = torch.zeros(x.shape[0], 8)
        h = self.a(x)
        out[:, :4].copy_(h[:, 4:])
        out[:, 4:] = self.b(h)[:, :4]
        return self.head(out)


@odd(VECTOR)
class ZeroAView(Vector):
    def forward(self, x: Tensor) -> Tensor:
        h = self.a(x)
        h[:, :3].zero_()
        return self.head(self.b(h))


@odd(VECTOR)
class FillAView(Vector):
    def forward(self, x: Tensor) -> Tensor:
        h = self.a(x)
        h[:, :3].fill_(1.0)
        return self.head(self.b(h))


@odd(VECTOR)
class WriteThroughAlias(Vector):
    def forward(self, x: Tensor) -> Tensor:
        h = self.a(x)
        h.detach().view(-1)[::3] = 1.0
        h.data[1].fill_(2.0)
        return self.head(self.b(h))


@odd(VECTOR)
class OutArguments(Vector):
    def forward(self, x: Tensor) -> Tensor:
        h, sums = self.a(x), torch.empty(x.shape[0], 8)
        torch.add(h, 1.0, out=sums)
        joined = torch.zeros(x.shape[0], 16)
        torch.cat([h, sums], dim=1, out=joined)
        return self.head(self.b(joined[:, 8:]))


@odd(VECTOR)
class ForeachOps(Vector):
    def forward(self, x: Tensor) -> Tensor:
        h, g = self.a(x), self.b(self.a(x))
        torch._foreach_add_([h, g], 1.0)
        return self.head(self.b(h) + g)


@odd(VECTOR)
class OverlappingWindows(Vector):
    def forward(self, x: Tensor) -> Tensor:
        h = F.pad(self.a(x), (0, 2)).contiguous()
        windows = h.as_strided((x.shape[0], 4, 4), (10, 2, 1))
        windows.mul_(1.0)
        return self.head(self.b(windows.sum(2).repeat(1, 2)) + h[:, :8])


@odd(VECTOR)
class Reinterpreted(Vector):
    def forward(self, x: Tensor) -> Tensor:
        h = self.a(x)
        pair = torch.view_as_complex(h.view(-1, 4, 2)) * (1 + 2j)
        bits = self.b(h).view(torch.int32).view(torch.float32)
        return self.head(torch.view_as_real(pair).flatten(1) + bits)


@odd(VECTOR)
class Resized(Vector):
    def forward(self, x: Tensor) -> Tensor:
        h = torch.relu(self.a(x))
        with torch.no_grad():
            g = h.clone().resize_(x.shape[0] + 3, 8)
            g[x.shape[0] :] = 1.0
        return self.head(self.b(g[-x.shape[0] :]) + h)


@odd(VECTOR)
class NumberInPlace(Vector):
    def forward(self, x: Tensor) -> Tensor:
        h = self.a(x)
        h.clamp_(min=0.1)
        g = self.b(h).clamp(0.0, 6.0)
        return self.head(g.masked_fill(g > 3, 0.0) + torch.where(g > 1, g, torch.zeros(())))


# ------------------------------------------------------------------ moving features
@odd(IMAGE)
class MovedChannels(Image):
    def forward(self, x: Tensor) -> Tensor:
        h = torch.relu(self.a(x))
        left, right = h.chunk(2, 1)
        h = torch.cat([right, left.flip(1)], 1)
        h = h.view(x.shape[0], 2, 4, *h.shape[2:]).transpose(1, 2).reshape(h.shape)
        h = F.pad(h, (1, 1, 0, 0))
        return self.end(F.max_pool2d(self.b(h).roll(3, 1), 2))


@odd(IMAGE)
class Flattened(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv2d(3, 4, 3, padding=1, stride=2)
        self.b = nn.Linear(64, 8)
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = self.a(x).permute(0, 2, 3, 1).flatten(1)
        out: Tensor = self.head(self.b(h).tanh())
        return out


@odd(IMAGE)
class ChannelsLast(Image):
    def forward(self, x: Tensor) -> Tensor:
        h = self.a(x.contiguous(memory_format=torch.channels_last))
        return self.end(self.b(h.relu()) + h)


@odd(IMAGE)
class GroupedAndDepthwise(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv2d(3, 8, 3, padding=1)
        self.grouped = nn.Conv2d(8, 16, 3, padding=1, groups=4)
        self.depthwise = nn.Conv2d(16, 16, 3, padding=1, groups=16)
        self.up = nn.ConvTranspose2d(16, 8, 2, stride=2)
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = self.depthwise(self.grouped(self.a(x).relu()).relu()).relu()
        out: Tensor = self.head(self.up(h).mean((2, 3)))
        return out


@odd(IMAGE)
class DenseWithReuse(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv2d(3, 4, 3, padding=1)
        self.b = nn.Conv2d(4, 4, 3, padding=1)
        self.c = nn.Conv2d(8, 4, 3, padding=1)
        self.head = nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        a = self.a(x).relu()
        b = self.b(a).relu()
        c = self.c(torch.cat([a, b], 1)).relu()
        out: Tensor = self.head(torch.cat([c, a, b], 1).amax((2, 3)))
        return out


@odd(VECTOR)
class PickedByData(Vector):
    """Which features go where depends on the sample: none can be said to be zero by its place."""

    def forward(self, x: Tensor) -> Tensor:
        h = self.a(x)
        order = x.sum(0).argsort().repeat(2)
        picked = h[:, order] + h.gather(1, h.argsort(1)) + h.index_select(1, order)
        return self.head(self.b(picked))


@odd(VECTOR)
class PickedByBuffer(Vector):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("order", torch.tensor([3, 1, 0, 2, 7, 6, 5, 4]))

    def forward(self, x: Tensor) -> Tensor:
        h = self.a(x)
        return self.head(self.b(h[:, self.order])[:, [1, 0, 2, 3, 4, 5, 6, 7]])


# ------------------------------------------------------------------ gates of the model's own, attention
@odd(IMAGE)
class SqueezeExcite(Image):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        h = self.a(x).relu()
        gate = torch.sigmoid(self.fc(F.adaptive_avg_pool2d(h, 1).flatten(1)))
        return self.end(self.b(h * gate[:, :, None, None]))


@odd(TOKENS)
class GatedMLP(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up, self.gate, self.down = nn.Linear(8, 16), nn.Linear(8, 16), nn.Linear(16, 8)
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.down(F.silu(self.gate(x)) * self.up(x)).mean(1))
        return out


@odd(TOKENS)
class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v, self.o = (nn.Linear(8, 8) for _ in range(4))
        self.packed = nn.MultiheadAttention(8, 2, batch_first=True)
        self.norm = nn.LayerNorm(8)
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (m(x).view(*x.shape[:2], 2, 4).transpose(1, 2) for m in (self.q, self.k, self.v))
        y = self.o(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        scores = torch.einsum("bhid,bhjd->bhij", q, k).softmax(-1)
        y = y + self.o(torch.einsum("bhij,bhjd->bhid", scores, v).transpose(1, 2).flatten(2))
        y = self.packed(y, y, y)[0]
        out: Tensor = self.head(self.norm(x + y).mean(1))
        return out


# ------------------------------------------------------------------ weights used by function
@odd(VECTOR)
class Functional(Vector):
    def forward(self, x: Tensor) -> Tensor:
        h = F.linear(x, self.a.weight, self.a.bias).relu()
        return self.head(h @ self.b.weight.t() + self.b.bias)


@odd(VECTOR)
class SliceOfWeight(Vector):
    def forward(self, x: Tensor) -> Tensor:
        h = self.a(x)
        top = F.linear(h[:, :5], self.b.weight[:4, :5], self.b.bias[:4])
        low = F.linear(h[:, 5:], self.b.weight[4:, 5:])
        return self.head(torch.cat([top, low], 1))


@odd(VECTOR)
class ModuleAndFunction(Vector):
    def forward(self, x: Tensor) -> Tensor:
        h = self.a(x)
        return self.head(self.b(h) + F.linear(h.flip(1), self.b.weight))


@odd(VECTOR)
class BiasElsewhere(Vector):
    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.b(self.a(x).relu() + self.b.bias))


@odd(VECTOR)
class ScaledWeight(Vector):
    """The weight is transformed before it is used, the bias is not."""

    def forward(self, x: Tensor) -> Tensor:
        h = self.a(x)
        return self.head(self.b(h) + F.linear(h, self.b.weight / self.b.weight.norm(), self.b.bias))


@odd(VECTOR)
class TransposedWeight(Vector):
    def forward(self, x: Tensor) -> Tensor:
        h = self.a(x)
        return self.head(self.b(h) + h @ self.b.weight)


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
    """Leaves behind what the gate never sees."""

    def forward(self, x: Tensor) -> Tensor:
        self.kept = super().forward(x)
        return self.kept


@odd(VECTOR)
class MixingSubclass(Vector):
    def __init__(self) -> None:
        super().__init__()
        self.a = NormalisedLinear(4, 8)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.b(self.a(x)))


@odd(VECTOR)
class ActivatedSubclass(Vector):
    def __init__(self) -> None:
        super().__init__()
        self.a = ActivatedLinear(4, 8)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.b(self.a(x)))


@odd(VECTOR)
class KeepingSubclass(Vector):
    def __init__(self) -> None:
        super().__init__()
        self.a = KeepingLinear(4, 8)

    def forward(self, x: Tensor) -> Tensor:
        h = self.a(x)
        return self.head(self.b(h) + self.a.kept)


# ------------------------------------------------------------------ norms
@odd(IMAGE)
class TwoNorms(Image):
    def __init__(self) -> None:
        super().__init__()
        self.n1, self.n2 = nn.BatchNorm2d(8), nn.BatchNorm2d(8)

    def forward(self, x: Tensor) -> Tensor:
        h = self.a(x)
        return self.end(self.b(self.n1(h).relu() + self.n2(h).relu()))


@odd(IMAGE)
class SharedNorm(Image):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(8)

    def forward(self, x: Tensor) -> Tensor:
        h = self.norm(self.a(x)).relu()
        return self.end(self.norm(self.b(h)).relu())


@odd(IMAGE)
class RawAlsoRead(Image):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(8)

    def forward(self, x: Tensor) -> Tensor:
        h = self.a(x)
        return self.end(self.b(self.norm(h).relu() + h[:, :, ::1].abs()))


@odd(IMAGE)
class NormOfAPart(Image):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(4)

    def forward(self, x: Tensor) -> Tensor:
        h = self.a(x)
        return self.end(self.b(torch.cat([self.norm(h[:, :4]), h[:, 4:]], 1)))


class SigmoidNorm(nn.BatchNorm2d):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).sigmoid()


class PeekingNorm(nn.BatchNorm2d):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + x.mean()


class ActivatedNorm(nn.BatchNorm2d):
    def forward(self, x: Tensor) -> Tensor:
        return F.silu(super().forward(x))


class _WithNorm(Image):
    norm_class: type[nn.BatchNorm2d] = nn.BatchNorm2d
    affine = True

    def __init__(self) -> None:
        super().__init__()
        self.norm = self.norm_class(8, affine=self.affine)

    def forward(self, x: Tensor) -> Tensor:
        return self.end(self.b(self.norm(self.a(x))))


@odd(IMAGE)
class WithPlainNorm(_WithNorm):
    pass


@odd(IMAGE)
class WithBareNorm(_WithNorm):
    affine = False


@odd(IMAGE)
class WithSigmoidNorm(_WithNorm):
    norm_class = SigmoidNorm


@odd(IMAGE)
class WithPeekingNorm(_WithNorm):
    norm_class = PeekingNorm


@odd(IMAGE)
class WithBarePeekingNorm(_WithNorm):
    norm_class = PeekingNorm
    affine = False


@odd(IMAGE)
class WithActivatedNorm(_WithNorm):
    norm_class = ActivatedNorm


@odd(IMAGE)
class OtherNorms(Image):
    def __init__(self) -> None:
        super().__init__()
        self.group, self.prelu = nn.GroupNorm(2, 8), nn.PReLU(8)
        self.c = nn.Conv2d(8, 8, 1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.prelu(self.a(x))
        return self.end(self.c(self.group(self.b(h))).sigmoid())


@odd((2, 4, 5))
class NormBehindLinear(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.norm, self.b = nn.Linear(5, 8), nn.BatchNorm1d(8), nn.Linear(8, 8)
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = self.norm(self.a(x).transpose(1, 2)).transpose(1, 2)
        out: Tensor = self.head(self.b(h).mean(1))
        return out


# ------------------------------------------------------------------ control flow and state
@odd(VECTOR)
class CalledThrice(Vector):
    def forward(self, x: Tensor) -> Tensor:
        h = self.a(x)
        for _ in range(3):
            h = self.b(h).relu() + h
        return self.head(h)


@odd(VECTOR)
class Checkpointed(Vector):
    def forward(self, x: Tensor) -> Tensor:
        h = checkpoint(self.a, x, use_reentrant=False)
        return self.head(checkpoint(lambda t: self.b(t).relu(), h, use_reentrant=False))


@odd(VECTOR)
class InferenceInside(Vector):
    def forward(self, x: Tensor) -> Tensor:
        with torch.inference_mode():
            h = self.b(self.a(x).relu().reshape(-1, 8))
            h[:, :2] += 1.0
        return self.head(h)


@odd(VECTOR)
class AutocastInside(Vector):
    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            h = self.b(self.a(x).relu())
        return self.head(h.float())


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
        return self.head(self.b(_Double.apply(self.a(x))))


@odd(VECTOR)
class Cache(Vector):
    """The first forward fills what later ones read."""

    cached: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        h = self.a(x)
        if self.cached is None:
            self.cached = torch.zeros_like(h)
        out: Tensor = self.head(self.b(self.cached) + h)
        self.cached = h + self.cached
        return out


@odd(VECTOR)
class CacheInClosure(Vector):
    def __init__(self) -> None:
        super().__init__()
        self.kept: list[Any] = [torch.zeros(1, 8)]

    def forward(self, x: Tensor) -> Tensor:
        h = self.a(x)
        out: Tensor = self.head(self.b(self.kept[-1]) + h)
        self.kept[:] = [h[:1].clone()]
        return out


@odd(VECTOR)
class FilledUnseen(Vector):
    """Zeros into which something that is no tensor operation writes."""

    def forward(self, x: Tensor) -> Tensor:
        out = torch.zeros(x.shape[0], 8)
        out.view(-1).numpy()[:] = 1.0
        return self.head(self.b(out) + self.a(x))


@odd(VECTOR)
class ZeroFactor(Vector):
    """Numbers that are zero now and may not be later."""

    factor = 0.0

    def forward(self, x: Tensor) -> Tensor:
        h = self.a(x)
        out: Tensor = self.head(self.b(h.relu() + (x.repeat(1, 2) * self.factor)) + self.factor)
        self.factor = 1.0
        return out


@odd(VECTOR)
class Quotient(Vector):
    def forward(self, x: Tensor) -> Tensor:
        h = self.a(x)
        return self.head(self.b(h / (1 + h.abs())) / h.norm(dim=1, keepdim=True).clamp_min(1e-6))


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
        return self.head(torch.cond(x.abs().sum() > 0, lambda t: t + 1.0, lambda t: t - 1.0, (h,)) + self.b(h))


@odd(VECTOR)
class Vmapped(Vector):
    def forward(self, x: Tensor) -> Tensor:
        h = torch.vmap(lambda row: self.a(row).relu())(x)
        return self.head(self.b(h))


@odd(VECTOR)
class ReplacedParameters(Vector):
    """The layer runs with other tensors than its own parameters."""

    def forward(self, x: Tensor) -> Tensor:
        twice = {k: v * 2 for k, v in self.a.named_parameters()}
        return self.head(self.b(torch.func.functional_call(self.a, twice, (x,))))


# ------------------------------------------------------------------ scattering, and operations nobody knows
@odd(VECTOR)
class Scattered(Vector):
    def forward(self, x: Tensor) -> Tensor:
        h = self.a(x)
        out = torch.zeros_like(h).scatter_(1, h.argsort(1), 1.0)
        out.index_put_((torch.tensor([0]), torch.tensor([1])), h[0, 2])
        rows = torch.zeros_like(h).index_add_(0, torch.tensor([1, 0]), self.b(h))
        h.masked_scatter_(h > 0, torch.ones_like(h))
        return self.head(self.b(out) + rows + self.b(h))


@torch.library.custom_op("fgadahat_tests::fill_", mutates_args=("x",))
def _fill(x: Tensor) -> None:
    x.fill_(1.0)


@torch.library.custom_op("fgadahat_tests::shift", mutates_args=())
def _shift(x: Tensor) -> Tensor:
    return x + 1.0


@odd(VECTOR)
class ForeignOps(Vector):
    def forward(self, x: Tensor) -> Tensor:
        h = self.a(x)
        g = self.b(_shift(h))
        _fill(h)
        return self.head(self.b(h) + g)


@odd(VECTOR)
class SparseAndNested(Vector):
    def forward(self, x: Tensor) -> Tensor:
        h = self.a(x)
        dense = (h.to_sparse() * 2).to_dense()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            nested = torch.nested.as_nested_tensor([h[0], h[1] + 1.0]).to_padded_tensor(0.0)
        return self.head(self.b(dense) + self.b(nested) + h)


@odd(VECTOR)
class Reductions(Vector):
    def forward(self, x: Tensor) -> Tensor:
        h = self.a(x)
        parts = [h.cumsum(1), h.sort(1).values, h.topk(8, 1)[0], h.max(1, keepdim=True)[0] + h, h.var(1)[:, None] + h]
        outer = torch.bmm(h[:, :, None], self.b(h)[:, None, :]).sum(2)
        return self.head(self.b(sum(parts)) + outer + h.pow(2) + (h @ h.t()) @ h + torch.maximum(h, h * 2))


@odd(VECTOR)
class DirectForward(Vector):
    """Calls a layer past its hooks."""

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.b.forward(self.a(x)).relu())


@odd(VECTOR)
class PermutedRows(Vector):
    def forward(self, x: Tensor) -> Tensor:
        h = self.a(x)
        return self.head(F.linear(h, self.b.weight[[1, 0, 2, 3, 4, 5, 6, 7]]) + self.b(h))


@odd(VECTOR)
class ExpandedColumn(Vector):
    def forward(self, x: Tensor) -> Tensor:
        h = self.a(x)
        column = self.b.weight[:, :1].t().expand(8, 8)
        return self.head(h @ column + self.b(h))


@odd(VECTOR)
class StoredTransposed(Vector):
    """The parameter itself is not in row order."""

    def __init__(self) -> None:
        super().__init__()
        self.b.weight = nn.Parameter(torch.randn(8, 8).t())

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.b(self.a(x)).relu() + F.linear(self.a(x), self.b.weight))


@odd(VECTOR)
class BufferState(Vector):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("memory", torch.zeros(2, 8))

    def forward(self, x: Tensor) -> Tensor:
        h = self.a(x)
        out: Tensor = self.head(self.b(self.memory) + h)
        self.memory.copy_(h)
        return out


@odd(VECTOR)
class WritesItsInput(Vector):
    def forward(self, x: Tensor) -> Tensor:
        x.mul_(2.0)
        return self.head(self.b(self.a(x).relu()))


STATEFUL = ("Cache", "CacheInClosure", "BufferState", "ZeroFactor", "WritesItsInput")
"""Those that give another output when called again."""


def build(name: str) -> tuple[nn.Module, Tensor]:
    """Return a model of the table, and an input."""
    torch.manual_seed(0)
    cls, shape = MODELS[name]
    return cls().eval(), torch.randn(shape)
