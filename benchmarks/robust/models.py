"""The kinds of models, each built for a number of classes."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from benchmarks.robust.text import VOCABULARY


def mlp(inputs: int, width: int, classes: int) -> nn.Module:
    """Return a multilayer perceptron of two hidden layers."""
    layers = [nn.Linear(inputs, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, classes)]
    return nn.Sequential(nn.Flatten(), *layers)


def cnn(size: int, norms: bool, classes: int) -> nn.Module:
    """Return a small convolutional network, with BatchNorm behind each convolution if asked for."""
    between = [[nn.BatchNorm2d(width)] if norms else [] for width in (16, 32)]
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), *between[0], nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1), *between[1], nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(32 * (size // 4) ** 2, 64), nn.ReLU(), nn.Linear(64, classes),
    )  # fmt: skip


def depthwise(classes: int) -> nn.Module:
    """Return a network of depthwise separable convolutions."""
    layers: list[nn.Module] = [nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU()]
    for inputs, width in ((16, 24), (24, 32), (32, 32)):
        layers += [nn.Conv2d(inputs, inputs, 3, padding=1, groups=inputs), nn.BatchNorm2d(inputs), nn.ReLU()]
        layers += [nn.Conv2d(inputs, width, 1), nn.BatchNorm2d(width), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, classes))


def resnet(classes: int) -> nn.Module:
    """Return torchvision's ResNet-18."""
    from torchvision.models import resnet18

    model: nn.Module = resnet18(num_classes=classes)
    return model


def mobilenet(classes: int) -> nn.Module:
    """Return torchvision's MobileNetV3-small."""
    from torchvision.models import mobilenet_v3_small

    model: nn.Module = mobilenet_v3_small(num_classes=classes)
    return model


def vit(classes: int) -> nn.Module:
    """Return a tiny vision transformer of timm."""
    from timm.models.vision_transformer import VisionTransformer

    sizes: dict[str, Any] = {"img_size": 28, "patch_size": 7, "embed_dim": 48, "depth": 3, "num_heads": 3}
    model: nn.Module = VisionTransformer(in_chans=1, num_classes=classes, **sizes)
    return model


class Logits(nn.Module):
    """A model of transformers that takes tokens and gives its logits alone."""

    def __init__(self, model: nn.Module) -> None:
        """Wrap a model."""
        super().__init__()
        self.model = model

    def forward(self, tokens: Tensor) -> Tensor:
        """Return the logits."""
        found: Tensor = self.model(input_ids=tokens).logits
        return found


def bert(classes: int) -> nn.Module:
    """Return a tiny BERT."""
    from transformers import BertConfig, BertForSequenceClassification

    sizes: dict[str, Any] = {"hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    sizes |= {"intermediate_size": 96, "max_position_embeddings": 32, "vocab_size": VOCABULARY, "num_labels": classes}
    return Logits(BertForSequenceClassification(BertConfig(**sizes)))
