"""Odd models: features that move, split, join, gate and attend to each other."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.graph.tracing.odd_base import IMAGE, TOKENS, VECTOR, Image, Vector, odd


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
    """Features are permuted by the data: none is zero by its position."""

    def forward(self, x: Tensor) -> Tensor:
        h = self.a(x)
        order = x.sum(0).argsort().repeat(2)
        picked = h[:, order] + h.gather(1, h.argsort(1)) + h.index_select(1, order)
        return self.end(self.b(picked))


@odd(VECTOR)
class PickedByBuffer(Vector):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("order", torch.tensor([3, 1, 0, 2, 7, 6, 5, 4]))

    def forward(self, x: Tensor) -> Tensor:
        h = self.a(x)
        return self.end(self.b(h[:, self.order])[:, [1, 0, 2, 3, 4, 5, 6, 7]])


# ------------------------------------------------------------------ gates in the model itself, attention
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
