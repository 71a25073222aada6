"""Ten published architectures, built without downloads, with random values everywhere, and tiny images for them."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torchvision.models as published
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from fgadahat_hooks.graph.tracing.forward import ExampleInputs, call_model

CLASSES = 4
SIZE = 32
"""Height and width of the images, in pixels; the largest stride of these models is 32."""


def _narrow_vgg() -> nn.Module:
    """Return VGG-11 with 256 units a layer in its classifier: layers of 4096 hold 93 % of its 129 M parameters."""
    model: nn.Module = published.vgg11_bn(num_classes=CLASSES)
    model.avgpool = nn.AdaptiveAvgPool2d(2)
    parts = list(model.get_submodule("classifier").children())
    parts[0], parts[3], parts[6] = nn.Linear(2048, 256), nn.Linear(256, 256), nn.Linear(256, CLASSES)
    model.classifier = nn.Sequential(*parts)
    return model


BUILDERS: dict[str, Callable[[], nn.Module]] = {
    "resnet18": lambda: published.resnet18(num_classes=CLASSES),
    "mobilenet_v3_small": lambda: published.mobilenet_v3_small(num_classes=CLASSES),
    "shufflenet_v2_x0_5": lambda: published.shufflenet_v2_x0_5(num_classes=CLASSES),
    "densenet121": lambda: published.densenet121(num_classes=CLASSES),
    "efficientnet_b0": lambda: published.efficientnet_b0(num_classes=CLASSES),
    "googlenet": lambda: published.googlenet(num_classes=CLASSES, aux_logits=False, init_weights=False),
    "vgg11_bn": _narrow_vgg,
    "convnext_tiny": lambda: published.convnext_tiny(num_classes=CLASSES),
    "swin_t": lambda: published.swin_t(num_classes=CLASSES),
    "vit_b_16": lambda: published.vit_b_16(num_classes=CLASSES, image_size=SIZE),
}
LIGHT = ("resnet18", "mobilenet_v3_small", "shufflenet_v2_x0_5")
HEAVY = tuple(name for name in BUILDERS if name not in LIGHT)
TRANSFORMERS = ("convnext_tiny", "swin_t", "vit_b_16")
"""Models without BatchNorm, and with parameters that belong to no layer."""


def build(name: str) -> nn.Module:
    """Return a model of `CLASSES` outputs, randomised so that norms, scales and head let every change through."""
    model = BUILDERS[name]()
    randomise(model, images(16))
    return model


def images(count: int = 4, seed: int = 1) -> Tensor:
    """Return `(count, 3, SIZE, SIZE)` standard normal images."""
    return torch.randn(count, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(seed))


def labels(count: int = 4, classes: int = CLASSES) -> Tensor:
    """Return `(count,)` labels that use every class in turn."""
    return torch.arange(count) % classes


def randomise(model: nn.Module, x: ExampleInputs) -> None:
    """Randomise every value that is special after initialisation, so that no equality of logits is vacuous.

    Zero heads and tiny layer scales would hide all that comes before them. So would running statistics far from the
    true ones, since the next layers would see a constant.
    """
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() <= 1 or "layer_scale" in name:
                parameter.uniform_(0.5, 1.5) if name.endswith(("weight", "layer_scale")) else parameter.normal_(0, 0.2)
            elif not parameter.any():
                parameter.normal_(0, 0.2)
    norms = [m for m in model.modules() if isinstance(m, _BatchNorm)]
    _measure_statistics(model, norms, x)
    for norm in norms:
        _shake_statistics(norm)


def _measure_statistics(model: nn.Module, norms: list[_BatchNorm], x: ExampleInputs) -> None:
    """Take the statistics of one batch, and set a momentum that is high enough for tasks of a few batches."""
    for norm in norms:
        norm.momentum = 1.0
    with torch.no_grad():
        call_model(model.train(), x)
    for norm in norms:
        norm.momentum = 0.5


def _shake_statistics(norm: _BatchNorm) -> None:
    if norm.running_mean is not None and norm.running_var is not None:
        norm.running_mean += norm.running_var.sqrt() * torch.randn_like(norm.running_mean) * 0.2
        norm.running_var *= torch.rand_like(norm.running_var) + 0.5
