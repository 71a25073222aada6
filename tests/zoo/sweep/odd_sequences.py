"""Small models of vectors, sequences, words, signals and videos, written by hand."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.zoo.sweep.odd_base import LINE, odd
from tests.zoo.sweep.subject import WORDS, normal, words


@odd(normal(4))
class DataDependentBranch(nn.Module):
    """Which function follows a layer, and how often a block runs, depends on the values."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.head = nn.Linear(4, 8), nn.Linear(8, 8), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        h = self.a(x)
        h = h.relu() if float(x.sum()) > 0 else h.tanh()
        for _ in range(1 + int(x.abs().mean() > 0.8)):
            h = h + self.b(h).relu()
        out: Tensor = self.head(h)
        return out


@odd(normal(4))
class BareParameters(nn.Module):
    """Parameters of no layer: a bias, a scale, a matrix."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.head = nn.Linear(4, 8), nn.Linear(8, 8), nn.Linear(8, 4)
        self.shift, self.scale = nn.Parameter(torch.zeros(8)), nn.Parameter(torch.ones(8))
        self.matrix = nn.Parameter(torch.randn(8, 8) / 3)

    def forward(self, x: Tensor) -> Tensor:
        h = (self.a(x).relu() * self.scale) @ self.matrix
        out: Tensor = self.head(F.silu(self.b(h + self.shift)))
        return out


@odd(words(5))
class TiedWords(nn.Module):
    """The head's weight is the embedding's."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.hidden, self.back = nn.Embedding(WORDS, 8), nn.Linear(8, 16), nn.Linear(16, 8)
        self.head = nn.Linear(8, WORDS)
        self.head.weight = self.embedding.weight

    def forward(self, input_ids: Tensor) -> Tensor:
        out: Tensor = self.head(self.back(F.gelu(self.hidden(self.embedding(input_ids)))))
        return out


@odd(words(5))
class Recurrent(nn.Module):
    """LSTM and GRU between gated layers."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.a = nn.Embedding(WORDS, 8), nn.Linear(8, 8)
        self.lstm, self.gru = nn.LSTM(8, 8, batch_first=True), nn.GRU(8, 8, batch_first=True, bidirectional=True)
        self.b, self.head = nn.Linear(16, 8), nn.Linear(8, 4)

    def forward(self, input_ids: Tensor) -> dict[str, Tensor]:
        h = self.lstm(self.a(self.embedding(input_ids)).tanh())[0]
        return {"logits": self.head(self.b(self.gru(h)[0]).tanh()[:, -1])}


@odd(LINE)
class TransformerEncoder(nn.Module):
    """Torch's own encoder, whose fast path evaluates past the modules, once with its norms in front."""

    def __init__(self) -> None:
        super().__init__()
        self.after = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        self.before = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, norm_first=True, activation="gelu")
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.before(self.after(x)).mean(1))
        return out


@odd(LINE)
class PlainScores(nn.Module):
    """Scores of queries and keys without a softmax, as features of a layer."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.key, self.mix = nn.Linear(8, 4), nn.Linear(8, 6), nn.Linear(5, 8)
        self.turn, self.head = nn.Parameter(torch.randn(6, 4)), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        scores = self.query(x) @ (self.key(x) @ self.turn).transpose(1, 2) + self.query(x) @ self.key(x)[..., 2:].mT
        out: Tensor = self.head(F.leaky_relu(self.mix(scores)).mean(1))
        return out


@odd(LINE)
class Highway(nn.Module):
    """Carries or transforms, by a sigmoid; the same block is used three times."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.carry, self.new = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 8)
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        h = self.a(x)
        for _ in range(3):
            t = torch.sigmoid(self.carry(h))
            h = t * h + (1 - t) * self.new(h).relu()
        out: Tensor = self.head(h.amax(1))
        return out


@odd(normal(4, 16))
class Signal(nn.Module):
    """One-dimensional convolutions down and up, with norms of every kind."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv1d(4, 8, 3, padding=1), nn.Conv1d(8, 12, 3, stride=2, groups=4)
        self.up = nn.ConvTranspose1d(12, 8, 2, stride=2, groups=2)
        self.batch, self.group = nn.BatchNorm1d(8), nn.GroupNorm(3, 12)
        self.mid, self.head = nn.Linear(8, 8), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        h = self.group(self.b(self.batch(self.a(x)).relu()))
        out: Tensor = self.head(F.mish(self.mid(F.softplus(self.up(h)).transpose(1, 2))).mean(1))
        return out


@odd(normal(2, 4, 6, 6))
class Video(nn.Module):
    """Three-dimensional convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv3d(2, 8, 3, padding=1), nn.Conv3d(8, 8, 3, stride=2, padding=1, groups=2)
        self.norm, self.mid, self.head = nn.BatchNorm3d(8), nn.Linear(8, 8), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        h = F.max_pool3d(self.norm(self.a(x)).relu(), 2)
        out: Tensor = self.head(self.mid(self.b(h).flatten(2).mean(2)).relu())
        return out


@odd(LINE)
class Mixtures(nn.Module):
    """Experts, chosen for each sample by the values."""

    def __init__(self) -> None:
        super().__init__()
        self.route, self.a = nn.Linear(8, 3), nn.Linear(8, 8)
        self.experts = nn.ModuleList([nn.Linear(8, 8) for _ in range(3)])
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        h = self.a(x).relu()
        share = self.route(x).softmax(-1)
        mixed = torch.stack([expert(h) for expert in self.experts], -1) * share[..., None, :]
        out: Tensor = self.head(mixed.sum(-1).mean(1))
        return out


@odd(LINE)
class LateHead(nn.Module):
    """The head is applied to each step, and the steps are averaged after it."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.norm, self.b = nn.Linear(8, 16), nn.RMSNorm(16), nn.Linear(16, 8, bias=False)
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(x + self.b(F.glu(self.norm(self.a(x)).repeat(1, 1, 2), -1))).mean(1)
        return out
