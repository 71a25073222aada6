"""Small convolutional networks with random layers and random wiring."""

from __future__ import annotations

import random
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

SHAPE = (3, 6, 6)
_FUNCTIONS: list[Callable[[Tensor], Tensor]] = [F.relu, F.gelu, F.silu, torch.sigmoid, F.softplus, torch.tanh]


class RandomNet(nn.Module):
    """Each step makes a feature map from earlier ones by one of six kinds of layer."""

    def __init__(self, seed: int, steps: int = 7) -> None:
        super().__init__()
        self._draw = random.Random(seed)  # noqa: S311 - wiring, no secret
        self.layers = nn.ModuleDict()
        self.plan: list[tuple[str, list[int], Callable[[Tensor], Tensor]]] = []
        self._widths = [SHAPE[0]]
        for number in range(steps):
            self._add(str(number))
        last = self._draw.choice(["flatten", "mean"])
        self.head = nn.Linear(self._widths[-1] * (SHAPE[1] * SHAPE[2] if last == "flatten" else 1), 4)
        self.flat = last == "flatten"

    def _add(self, name: str) -> None:
        draw, count = self._draw, len(self._widths)
        kind = draw.choice(["conv", "conv", "depthwise", "grouped", "residual", "cat", "excite"])
        source = draw.randrange(count)
        width = self._widths[source]
        sources, out = [source], draw.choice([4, 6])
        if kind == "depthwise":
            self.layers[name] = nn.Conv2d(width, width * 2, 3, padding=1, groups=width)
            out = width * 2
        elif kind == "grouped" and width % 2 == 0:
            self.layers[name] = nn.Conv2d(width, out, 3, padding=1, groups=2)
        elif kind == "cat":
            sources.append(draw.randrange(count))
            out = sum(self._widths[s] for s in sources)
        elif kind == "residual":
            self.layers[name], out = nn.Conv2d(width, width, 3, padding=1), width
        elif kind == "excite":
            self.layers[name], out = nn.Conv2d(width, width, 1), width
        else:
            kind = "conv"
            self.layers[name] = nn.Conv2d(width, out, draw.choice([1, 3]), padding="same")
        if draw.random() < 0.5:
            self.layers[f"{name}n"] = _norm(out)
        self.plan.append((kind, sources, draw.choice(_FUNCTIONS[:3] if draw.random() < 0.7 else _FUNCTIONS)))
        self._widths.append(out)

    def forward(self, x: Tensor) -> Tensor:
        maps = [x]
        for number, (kind, sources, function) in enumerate(self.plan):
            h, name = maps[sources[0]], str(number)
            if kind == "cat":
                h = torch.cat([maps[s] for s in sources], 1)
            elif kind == "excite":
                h = h * self.layers[name](h.mean((2, 3), keepdim=True)).sigmoid()
            else:
                made = self.layers[name](h)
                h = h + made if kind == "residual" else made
            h = self.layers[f"{name}n"](h) if f"{name}n" in self.layers else h
            maps.append(function(h))
        last = maps[-1].flatten(1) if self.flat else maps[-1].mean((2, 3))
        logits: Tensor = self.head(last)
        return logits


def _norm(width: int) -> nn.BatchNorm2d:
    norm = nn.BatchNorm2d(width)
    norm.running_mean = torch.randn(width)
    norm.running_var = torch.rand(width) + 0.5
    nn.init.uniform_(norm.weight, 0.5, 1.5)
    nn.init.normal_(norm.bias)
    return norm
