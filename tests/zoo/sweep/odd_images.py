"""Small models of images, written by hand."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.zoo.sweep.odd_base import MAP, Net, odd


@odd(MAP)
class NormOverConcatenation(Net):
    """Dense connections, a BatchNorm over each concatenation."""

    width = 16

    def __init__(self) -> None:
        super().__init__()
        self.norms = nn.ModuleList([nn.BatchNorm2d(8), nn.BatchNorm2d(12), nn.BatchNorm2d(16)])
        self.convs = nn.ModuleList([nn.Conv2d(8, 4, 3, padding=1), nn.Conv2d(12, 4, 3, padding=1)])

    def body(self, x: Tensor) -> Tensor:
        for norm, conv in zip(self.norms, self.convs, strict=False):
            x = torch.cat([x, conv(norm(x).relu())], 1)
        out: Tensor = self.norms[-1](x).relu()
        return out


@odd(MAP)
class ShuffledGroups(Net):
    """Grouped convolutions with a channel shuffle between, depthwise, norms behind each."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(8, 16, 1, groups=4, bias=False), nn.Conv2d(16, 8, 1, groups=4, bias=False)
        self.depth = nn.Conv2d(16, 16, 3, padding=1, groups=16, bias=False)
        self.n1, self.n2, self.n3 = nn.BatchNorm2d(16), nn.BatchNorm2d(16), nn.BatchNorm2d(8)

    def body(self, x: Tensor) -> Tensor:
        h = F.channel_shuffle(self.n1(self.one(x)).relu(), 4)
        return x + F.relu6(self.n3(self.two(self.n2(self.depth(h)))))


@odd(MAP)
class SplitAndChunk(Net):
    """Half of the channels goes past, the other half is cut again, all meet in another order."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.small = nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(2, 2, 1)

    def body(self, x: Tensor) -> Tensor:
        left, right = x.relu().chunk(2, 1)
        a, b = self.conv(right).split(2, 1)
        return F.interpolate(
            torch.cat([self.small(b), left[:, ::2], F.avg_pool2d(a, 1), left[:, 1::2]], 1), scale_factor=2
        )


@odd(MAP)
class StitchedMaps(Net):
    """Maps of two layers side by side, padded in width and channels, pooled in windows and as a whole."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.last = nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(12, 8, 1)

    def body(self, x: Tensor) -> Tensor:
        wide = F.pad(torch.cat([x, self.conv(x)], 3), (1, 1, 0, 0, 2, 2))
        out: Tensor = self.last(F.max_pool2d(wide, 2)) + F.adaptive_avg_pool2d(wide, 1)[:, 2:10]
        return out


@odd(MAP)
class UNet(nn.Module):
    """Down, up with a transposed convolution, a skip by concatenation; the head is a convolution, the output a map."""

    def __init__(self) -> None:
        super().__init__()
        self.down, self.deep = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 16, 3, stride=2, padding=1)
        self.up, self.norm = nn.ConvTranspose2d(16, 8, 2, stride=2), nn.InstanceNorm2d(8, affine=True)
        self.join, self.head = nn.Conv2d(16, 8, 3, padding=1), nn.Conv2d(8, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        skip = F.leaky_relu(self.down(x))
        h = F.elu(self.up(F.relu(self.deep(skip))))
        out: Tensor = self.head(self.norm(self.join(torch.cat([skip, h], 1))).relu())
        return out


@odd(MAP, gates={"exclude": ["second"]})
class Auxiliary(Net):
    """In training a list of the logits and those of a second head; in evaluation a list of one."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(8, 8, 3, padding=1)
        self.second = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> list[Tensor]:
        h = self.stem(x).relu()
        logits = self.head(self.conv(h).relu().mean((2, 3)))
        return [logits, self.second(h.mean((2, 3)))] if self.training else [logits]


@odd(MAP)
class Frozen(Net):
    """Every second layer is not trained, nor is one bias."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Conv2d(8, 8, 3, padding=1) for _ in range(4)])
        self.norms = nn.ModuleList([nn.BatchNorm2d(8) for _ in range(4)])
        for part in (self.layers[0], self.layers[2], self.norms[2]):
            part.requires_grad_(False)
        self.layers[1].get_parameter("bias").requires_grad_(False)

    def body(self, x: Tensor) -> Tensor:
        for layer, norm in zip(self.layers, self.norms, strict=True):
            x = x + norm(layer(x)).relu()
        return x


@odd(MAP)
class Transformed(Net):
    """Weights with weight and spectral normalisation, which are not gated, between layers that are."""

    def __init__(self) -> None:
        super().__init__()
        self.weight_normed = nn.utils.parametrizations.weight_norm(nn.Conv2d(8, 8, 3, padding=1))
        self.spectral = nn.utils.parametrizations.spectral_norm(nn.Conv2d(8, 8, 1))
        self.last = nn.Conv2d(8, 8, 1)

    def body(self, x: Tensor) -> Tensor:
        out: Tensor = self.last(self.spectral(self.weight_normed(x.relu()).relu()))
        return out
