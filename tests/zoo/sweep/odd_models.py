"""Small models written by hand, each for something that published models do rarely; those of the tracing tests too."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.unit.tracing.odd_models import FILES, MODELS
from tests.zoo.sweep.subject import WORDS, Inputs, Subject, normal, words

assert FILES
TRAINABLE = """
    MovedChannels Flattened ChannelsLast GroupedAndDepthwise DenseWithReuse PickedByData PickedByBuffer SqueezeExcite
    GatedMLP Attention CalledThrice Checkpointed AutocastInside CustomFunction Quotient DropoutAndLists Conditional
    Vmapped ReplacedParameters TwoNorms SharedNorm RawAlsoRead NormOfAPart WithPlainNorm WithBareNorm WithSigmoidNorm
    WithPeekingNorm WithActivatedNorm OtherNorms NormBehindLinear InPlaceIntoSlice CopyIntoSlices
    ForeachOps Reductions Functional SliceOfWeight ModuleAndFunction BiasElsewhere ScaledWeight
    TransposedWeight SwappedKernel FunctionalConv WeightStandardised MixingSubclass ActivatedSubclass KeepingSubclass
    DirectForward PermutedRows ExpandedColumn StoredTransposed
"""
"""Models of the tracing tests that have a backward and keep no state between forwards."""
MAP, LINE = normal(3, 8, 8), normal(5, 8)
ODD: dict[str, tuple[type[nn.Module], Inputs, Mapping[str, Any]]] = {}


def subjects() -> Iterator[Subject]:
    """Yield those of this file, then those of the tracing tests."""
    for name, (cls, inputs, spec) in ODD.items():
        yield Subject(f"odd {name}", "odd", cls, inputs, spec, _first_line(cls), steps=3)
    for name in TRAINABLE.split():
        cls, shape = MODELS[name]
        yield Subject(f"odd {name}", "odd", cls, normal(*shape[1:]), note=_first_line(cls), steps=3)


def _first_line(cls: type[nn.Module]) -> str:
    own = cls.__dict__.get("__doc__") or ""
    return str(own).strip().split("\n")[0].rstrip(".")


def odd(inputs: Inputs, **spec: Any) -> partial[Any]:
    """Add a class to the table."""
    return partial(_add, inputs, spec)


def _add(inputs: Inputs, spec: Mapping[str, Any], cls: type[nn.Module]) -> type[nn.Module]:
    ODD[cls.__name__] = (cls, inputs, spec)
    return cls


# ------------------------------------------------------------------ images
class _Net(nn.Module):
    """A convolution in front, a Linear head behind; subclasses say what is between."""

    width = 8

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.head = nn.Linear(self.width, 4)

    def forward(self, x: Tensor) -> Any:
        out: Tensor = self.head(self.body(self.stem(x)).mean((2, 3)))
        return out

    def body(self, x: Tensor) -> Tensor:
        raise NotImplementedError


@odd(MAP)
class NormOverConcatenation(_Net):
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
class ShuffledGroups(_Net):
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
class SplitAndChunk(_Net):
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
class StitchedMaps(_Net):
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
class Auxiliary(_Net):
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
class Frozen(_Net):
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
class Transformed(_Net):
    """Weights with weight and spectral normalisation, which are not gated, between layers that are."""

    def __init__(self) -> None:
        super().__init__()
        self.weight_normed = nn.utils.parametrizations.weight_norm(nn.Conv2d(8, 8, 3, padding=1))
        self.spectral = nn.utils.parametrizations.spectral_norm(nn.Conv2d(8, 8, 1))
        self.last = nn.Conv2d(8, 8, 1)

    def body(self, x: Tensor) -> Tensor:
        out: Tensor = self.last(self.spectral(self.weight_normed(x.relu()).relu()))
        return out


# ------------------------------------------------------------------ vectors, sequences, words
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
