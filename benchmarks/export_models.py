"""Published architectures to export: small variants, with the smallest images that they accept."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torchvision.models as published
from torch import Tensor, nn

CLASSES = 10
WORDS = 100
"""Size of the vocabulary of language models."""


@dataclass(frozen=True)
class Subject:
    """A model and the size of its inputs.

    Attributes:
        make: Builds it with random weights.
        size: Height and width of its images in pixels; 0 for token ids.
    """

    make: Callable[[], nn.Module]
    size: int = 64

    def inputs(self, count: int, seed: int) -> Tensor:
        """Return `(count, 3, size, size)` images, or `(count, 12)` token ids."""
        draw = torch.Generator().manual_seed(seed)
        if self.size == 0:
            return torch.randint(0, WORDS, (count, 12), generator=draw)
        return torch.randn(count, 3, self.size, self.size, generator=draw)


def _vision(name: str, size: int = 64, **options: Any) -> Subject:
    return Subject(lambda: published.get_model(name, weights=None, num_classes=CLASSES, **options), size)


def _small_vit() -> nn.Module:
    made: nn.Module = published.VisionTransformer(
        image_size=64, patch_size=16, num_layers=4, num_heads=4, hidden_dim=128, mlp_dim=512, num_classes=CLASSES
    )
    return made


def _vgg() -> nn.Module:
    """Return VGG-11 with 256 units in the layers of its classifier, where 4096 would hold most of its parameters."""
    model: nn.Module = published.vgg11_bn(num_classes=CLASSES)
    model.avgpool = nn.AdaptiveAvgPool2d(2)
    parts = list(model.get_submodule("classifier").children())
    parts[0], parts[3], parts[6] = nn.Linear(2048, 256), nn.Linear(256, 256), nn.Linear(256, CLASSES)
    model.classifier = nn.Sequential(*parts)
    return model


def _timm(name: str) -> nn.Module:
    import timm

    made: nn.Module = timm.create_model(name, num_classes=CLASSES)
    return made


def _bert() -> nn.Module:
    from transformers import BertConfig, BertForSequenceClassification

    sizes = {"hidden_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 256}
    config = BertConfig.from_dict({**sizes, "vocab_size": WORDS, "num_labels": CLASSES})
    return BertForSequenceClassification(config)


SUBJECTS: dict[str, Subject] = {
    "ResNet-18": _vision("resnet18"),
    "ResNet-50": _vision("resnet50"),
    "VGG-11-BN (narrow classifier)": Subject(_vgg),
    "DenseNet-121": _vision("densenet121"),
    "MobileNetV2": _vision("mobilenet_v2"),
    "MobileNetV3-S": _vision("mobilenet_v3_small"),
    "EfficientNet-B0": _vision("efficientnet_b0"),
    "ShuffleNetV2 x1.0": _vision("shufflenet_v2_x1_0"),
    "SqueezeNet 1.1": _vision("squeezenet1_1"),
    "RegNetX-400MF": _vision("regnet_x_400mf"),
    "RegNetY-400MF": _vision("regnet_y_400mf"),
    "MNASNet 0.5": _vision("mnasnet0_5"),
    "GoogLeNet": _vision("googlenet", aux_logits=False, init_weights=False),
    "Inception v3": _vision("inception_v3", size=96, aux_logits=False, init_weights=False),
    "ConvNeXt-T": _vision("convnext_tiny"),
    "ViT (4 blocks of 128)": Subject(_small_vit),
    "Swin-T": _vision("swin_t"),
    "timm: ResNet-26d": Subject(lambda: _timm("resnet26d")),
    "timm: CSPResNet-50": Subject(lambda: _timm("cspresnet50")),
    "timm: MLP-Mixer S/32": Subject(lambda: _timm("mixer_s32_224"), 224),
    "transformers: BERT (3 blocks of 64)": Subject(_bert, 0),
}


def build(name: str) -> nn.Module:
    """Return a model with random norms, scales and head, so that no error stays hidden."""
    torch.manual_seed(0)
    subject = SUBJECTS[name]
    model = subject.make()
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            if parameter.dim() <= 1 or "layer_scale" in key:
                parameter.uniform_(0.5, 1.5) if key.endswith(("weight", "layer_scale")) else parameter.normal_(0, 0.2)
        norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
        momenta = [norm.momentum for norm in norms]
        for norm in norms:
            norm.momentum = 1.0
        if norms:
            model.train()(subject.inputs(8, seed=2))  # statistics far from the true ones would hide earlier errors
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
            _shake(norm)
    return model.eval()


def _shake(norm: nn.modules.batchnorm._BatchNorm) -> None:
    if norm.running_mean is not None and norm.running_var is not None:
        norm.running_mean += norm.running_var.sqrt() * torch.randn_like(norm.running_mean) * 0.2
        norm.running_var *= torch.rand_like(norm.running_var) + 0.5
