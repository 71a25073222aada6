"""Odd models: norms behind layers."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.graph.tracing.odd_base import IMAGE, Image, odd


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
