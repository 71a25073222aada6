"""Finished tasks with random masks, and models with special cases for the export."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import fgadahat_hooks as fh
from tests.support.learning import logits

SHARE = 0.5
"""Fraction of the units that are on."""


def finish(session: fh.Session, task: str, seed: int = 0, share: float = SHARE) -> None:
    """Finish a task whose masks are random, `share` of the units on."""
    draw = torch.Generator().manual_seed(seed)
    with session.task(task) as running:
        running.anneal(1, 1)
        with torch.no_grad():
            for embedding in session.embeddings.values():
                embedding.copy_(share - torch.rand(embedding.shape, generator=draw))


def exported_and_used(session: fh.Session, task: str, x: Tensor) -> tuple[Tensor, Tensor]:
    """Return the logits of the exported module and those under `session.use`."""
    module = session.export(task)
    with torch.no_grad():
        return module(x), logits(session, task, x)


class Plain(nn.Module):
    """A batch norm without parameters, so that its gate acts on its output."""

    def __init__(self, *, track: bool = True) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8, affine=False, track_running_stats=track)
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(F.relu(self.norm(self.conv(x))).mean((2, 3)))
        return logits


class TiedNorms(nn.Module):
    """Two batch norms with one scale: each task masks different rows of it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(2, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.conv2, self.norm2 = nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.head = nn.Linear(8, 3)
        self.norm2.weight = self.norm1.weight

    def forward(self, x: Tensor) -> Tensor:
        h = F.relu(self.norm1(self.conv1(x)))
        logits: Tensor = self.head(F.relu(self.norm2(self.conv2(h))).mean((2, 3)))
        return logits


class Attention(nn.Module):
    """Attention whose output layer is called functionally, and a grouped convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 8, 3, padding=1, groups=2)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        tokens = F.gelu(self.conv(x)).flatten(2).transpose(1, 2)
        mixed, _ = self.attention(tokens, tokens, tokens, need_weights=False)
        logits: Tensor = self.head(mixed.mean(1))
        return logits


class TiedHead(nn.Module):
    """A head that shares its weight with the layer that reads words, as language models do."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.hidden = nn.Embedding(11, 6), nn.Linear(6, 6)
        self.head = nn.Linear(6, 11, bias=False)
        self.head.weight = self.words.weight

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(F.relu(self.hidden(self.words(x).mean(1))))
        return logits
