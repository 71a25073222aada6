"""Models with the layer types that image classifiers lack: Conv1d, Conv3d, transposed ones, Embedding and Conv1D."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

CLASSES = 3
WORDS = 20


class Line(nn.Module):
    """Plain, grouped and depthwise one-dimensional convolutions with norms; the second has circular padding."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm1 = nn.Conv1d(2, 16, 5, bias=False), nn.BatchNorm1d(16)
        self.grouped = nn.Conv1d(16, 24, 3, padding=1, groups=2, padding_mode="circular")
        self.norm2 = nn.BatchNorm1d(24)
        self.depthwise, self.point = nn.Conv1d(24, 24, 3, padding="same", groups=24), nn.Conv1d(24, 24, 1)
        self.head = nn.Linear(24, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        h = F.max_pool1d(F.relu(self.norm1(self.stem(x))), 2)
        h = F.relu(self.norm2(self.grouped(h)))
        h = F.relu(self.point(F.relu(self.depthwise(h))))
        logits: Tensor = self.head(F.adaptive_avg_pool1d(h, 1).flatten(1))
        return logits


class Volume(nn.Module):
    """A three-dimensional convolutional network with each type of pooling."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv3d(2, 16, 3, padding=1, bias=False), nn.BatchNorm3d(16)
        self.grouped = nn.Conv3d(16, 16, (1, 3, 3), groups=4)
        self.up = nn.ConvTranspose3d(16, 24, 2, stride=2, groups=2)
        self.head = nn.Linear(24, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        h = F.max_pool3d(F.relu(self.norm(self.stem(x))), (1, 2, 2))
        h = F.avg_pool3d(F.relu(self.up(F.relu(self.grouped(h)))), 2)
        logits: Tensor = self.head(F.adaptive_avg_pool3d(h, 1).flatten(1))
        return logits


class UNet(nn.Module):
    """A classifier of pixels: convolutions down, transposed ones up, and a skip connection."""

    def __init__(self) -> None:
        super().__init__()
        self.down, self.norm1 = nn.Conv2d(2, 6, 3, padding=1), nn.BatchNorm2d(6)
        self.bottom, self.norm2 = nn.Conv2d(6, 8, 3, stride=2, padding=1), nn.BatchNorm2d(8)
        self.up, self.norm3 = nn.ConvTranspose2d(8, 6, 2, stride=2, bias=False), nn.BatchNorm2d(6)
        self.grouped = nn.ConvTranspose2d(12, 8, 3, padding=1, groups=2)
        self.head = nn.Conv2d(8, CLASSES, 1)

    def forward(self, x: Tensor) -> Tensor:
        skip = F.relu(self.norm1(self.down(x)))
        h = F.relu(self.norm2(self.bottom(skip)))
        h = torch.cat([F.relu(self.norm3(self.up(h))), skip], 1)
        logits: Tensor = self.head(F.relu(self.grouped(h)))
        return logits


def generator() -> nn.Module:
    """Return the generator of a small DCGAN (Radford et al. 2015), whose head is a transposed convolution."""
    return nn.Sequential(
        nn.ConvTranspose2d(5, 32, 4, bias=False), nn.BatchNorm2d(32), nn.ReLU(),
        nn.ConvTranspose2d(32, 24, 4, 2, 1, bias=False), nn.BatchNorm2d(24), nn.ReLU(),
        nn.ConvTranspose2d(24, CLASSES, 4, 2, 1, bias=False), nn.Tanh(),
    )  # fmt: skip


class Sound(nn.Module):
    """A decoder of waveforms: transposed one-dimensional convolutions, and a convolution of width 1 as head."""

    def __init__(self) -> None:
        super().__init__()
        self.up1, self.norm = nn.ConvTranspose1d(4, 24, 4, stride=2), nn.BatchNorm1d(24)
        self.up2 = nn.ConvTranspose1d(24, 16, 3, stride=2, output_padding=1, groups=2)
        self.head = nn.Conv1d(16, CLASSES, 1)

    def forward(self, x: Tensor) -> Tensor:
        h = F.relu(self.up2(F.relu(self.norm(self.up1(x)))))
        logits: Tensor = self.head(h)
        return logits


class Words(nn.Module):
    """The sum of word and position embeddings, a convolution over words, and a maximum over them."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.places = nn.Embedding(WORDS, 8, padding_idx=0), nn.Embedding(6, 8)
        self.conv, self.head = nn.Conv1d(8, 8, 3), nn.Linear(8, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        h = self.words(x) + self.places(torch.arange(x.shape[1], device=x.device))
        logits: Tensor = self.head(F.relu(self.conv(h.transpose(1, 2))).amax(2))
        return logits


class Functional(nn.Module):
    """Calls functions with the weights of its layers, so that gates must act on the unit axis of each weight."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.up = nn.Embedding(WORDS, 8), nn.ConvTranspose1d(8, 24, 3, groups=2)
        self.dense, self.head = import_module("transformers.pytorch_utils").Conv1D(24, 24), nn.Linear(24, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        h = F.embedding(x, self.words.weight).transpose(1, 2)
        h = F.relu(F.conv_transpose1d(h, self.up.weight, self.up.bias, groups=2)).mean(2)
        h = F.relu(torch.addmm(self.dense.bias, h, self.dense.weight))
        logits: Tensor = self.head(h)
        return logits


class Logits(nn.Module):
    """A model of transformers that returns only its logits."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.net(x).logits
        return logits


def gpt2() -> nn.Module:
    """Return GPT-2 as a classifier, which has `Conv1D` layers."""
    t: Any = import_module("transformers")
    options = {"n_embd": 8, "n_layer": 2, "n_head": 2, "n_positions": 8}
    tokens = {"vocab_size": WORDS, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    return Logits(t.GPT2ForSequenceClassification(t.GPT2Config(num_labels=CLASSES, **options, **tokens)))


def wav2vec2() -> nn.Module:
    """Return Wav2Vec2 as a classifier: one-dimensional convolutions, one of them with a parametrized weight."""
    t: Any = import_module("transformers")
    config = t.Wav2Vec2Config(
        hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, conv_dim=(8, 8),
        conv_kernel=(5, 3), conv_stride=(3, 2), num_conv_pos_embeddings=4, num_conv_pos_embedding_groups=2,
        classifier_proj_size=8, num_labels=CLASSES, apply_spec_augment=False, layerdrop=0.0,
    )  # fmt: skip
    return Logits(t.Wav2Vec2ForSequenceClassification(config))


def video() -> nn.Module:
    """Return torchvision's video ResNet with one block per stage, and fewer channels than the published ones."""
    from torchvision.models.video.resnet import BasicBlock, Conv3DSimple, VideoResNet

    model: nn.Module = VideoResNet(BasicBlock, [Conv3DSimple] * 4, [1, 1, 1, 1], _ThinStem, num_classes=CLASSES)
    return model


class _ThinStem(nn.Sequential):
    def __init__(self) -> None:
        conv = nn.Conv3d(2, 64, (3, 7, 7), (1, 2, 2), (1, 3, 3), bias=False)
        super().__init__(conv, nn.BatchNorm3d(64), nn.ReLU(inplace=True))


@dataclass(frozen=True)
class Subject:
    """A model, and the shapes of its inputs and outputs.

    Attributes:
        build: Makes the model.
        shape: Shape of one sample's input; for words, their number.
        places: Shape of one sample's output after the class axis.
        targets: Which layers get gates.
    """

    build: Callable[[], nn.Module]
    shape: tuple[int, ...]
    places: tuple[int, ...] = ()
    targets: tuple[str, ...] = ("all",)

    def model(self) -> nn.Module:
        """Return the model, the same each time, with random norm parameters and biases, none of them zero."""
        torch.manual_seed(3)
        model = self.build()
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if parameter.dim() <= 1:
                    parameter.uniform_(0.5, 1.5) if name.endswith("weight") else parameter.normal_(0, 0.2)
        return model

    def batch(self, count: int = 4, seed: int = 0) -> tuple[Tensor, Tensor]:
        """Return inputs and labels, one label per position of the output."""
        generator = torch.Generator().manual_seed(seed)
        words = len(self.shape) == 1 and self.shape[0] < WORDS
        size = (count, *self.shape)
        x = torch.randint(1, WORDS, size, generator=generator) if words else torch.randn(size, generator=generator)
        return x, torch.randint(0, CLASSES, (count, *self.places), generator=generator)

    @property
    def spec(self) -> dict[str, Any]:
        """A spec with HAT on the targets."""
        return {"gates": {"targets": list(self.targets)}, "adjustment": {"mode": "hat"}}


SUBJECTS: dict[str, Subject] = {
    "line": Subject(Line, (2, 20)),
    "volume": Subject(Volume, (2, 3, 8, 8)),
    "unet": Subject(UNet, (2, 6, 6), (6, 6)),
    "generator": Subject(generator, (5, 1, 1), (16, 16)),
    "sound": Subject(Sound, (4, 5), (26,)),
    "words": Subject(Words, (6,), targets=("all", "all-embedding")),
    "functional": Subject(Functional, (6,), targets=("all", "all-embedding")),
    "gpt2": Subject(gpt2, (5,)),
    "gpt2 with tables": Subject(gpt2, (5,), targets=("all", "all-embedding")),
    "wav2vec2": Subject(wav2vec2, (60,)),
    "video": Subject(video, (2, 3, 12, 12)),
}
SMALL = tuple(name for name in SUBJECTS if name not in ("wav2vec2", "video", "gpt2"))
"""The subjects that cover every layer type at the lowest cost."""
