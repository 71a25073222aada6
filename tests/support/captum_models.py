"""Models that captum supports: each non-linear module used once, sums as modules, no ReLU in place."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from captum.attr._utils.custom_modules import Addition_Module
from captum.attr._utils.lrp_rules import EpsilonRule, PropagationRule
from torch import Tensor, nn
from torchvision.models import resnet18
from torchvision.models.resnet import BasicBlock, ResNet

from tests.support.attribution import mean_abs
from tests.support.plain_attribution import layer_site


class Mask(nn.Module):
    """Multiplies each channel by a constant; captum treats it as a linear layer."""

    mask: Tensor

    def __init__(self, mask: Tensor) -> None:
        super().__init__()
        self.register_buffer("mask", mask)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.mask.view(-1, *[1] * (x.dim() - 2))


class Cnn(nn.Module):
    """Convolutions, grouped ones too, with norms, a skip connection, dropout, a max pool and a flattened map.

    Args:
        masks: Constants for each layer's units, after its norm; none when left out.
    """

    def __init__(self, masks: Mapping[str, Tensor] | None = None) -> None:
        super().__init__()
        self.stem, self.stem_norm = nn.Conv2d(3, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6)
        self.left, self.left_norm = nn.Conv2d(6, 6, 3, padding=1, groups=2), nn.BatchNorm2d(6)
        self.right, self.add = nn.Conv2d(6, 6, 1), Addition_Module()
        self.relu1, self.relu2, self.relu3 = nn.ReLU(), nn.ReLU(), nn.ReLU()
        self.drop, self.pool = nn.Dropout(0.5), nn.MaxPool2d(2)
        self.hidden, self.head = nn.Linear(6 * 16, 7), nn.Linear(7, 4)
        for name, mask in (masks or {}).items():
            self.add_module(f"{name}_mask", Mask(mask))

    def _masked(self, name: str, x: Tensor) -> Tensor:
        mask = self._modules.get(f"{name}_mask")
        return x if mask is None else mask(x)

    def forward(self, x: Tensor) -> Tensor:
        h = self.relu1(self._masked("stem", self.stem_norm(self.stem(x))))
        left = self._masked("left", self.left_norm(self.left(h)))
        h = self.relu2(self.add(left, self._masked("right", self.right(h))))
        h = self.pool(self.drop(h).clone())  # not the ReLU's own output: see the test of adjacent modules
        logits: Tensor = self.head(self.relu3(self._masked("hidden", self.hidden(h.flatten(1)))))
        return logits


class Block(nn.Module):
    """What torchvision's `BasicBlock` does, with a module for each step."""

    def __init__(self, block: BasicBlock) -> None:
        super().__init__()
        self.conv1, self.bn1, self.conv2, self.bn2 = block.conv1, block.bn1, block.conv2, block.bn2
        self.downsample = block.downsample
        self.relu1, self.relu2, self.add = nn.ReLU(), nn.ReLU(), Addition_Module()

    def forward(self, x: Tensor) -> Tensor:
        skip = x if self.downsample is None else self.downsample(x)
        h = self.bn2(self.conv2(self.relu1(self.bn1(self.conv1(x)))))
        out: Tensor = self.relu2(self.add(h, skip))
        return out


def for_captum(resnet: ResNet) -> nn.Module:
    """Return a copy of a residual network whose blocks captum supports."""
    made: nn.Module = copy.deepcopy(resnet)
    made.add_module("relu", nn.ReLU())
    for number in range(1, 5):
        stage = made.get_submodule(f"layer{number}")
        for name, block in list(stage.named_children()):
            stage.add_module(name, Block(block))
    return made


def set_captum_rules(model: nn.Module, rule: type[PropagationRule] = EpsilonRule) -> None:
    """Set captum's rules for masks and layers; captum removes them after each call."""
    for module in model.modules():
        if isinstance(module, Mask):
            module.rule = EpsilonRule()
        if isinstance(module, nn.Linear | nn.Conv2d):
            module.rule = rule()


def randomise_norms(model: nn.Module) -> nn.Module:
    """Give every BatchNorm random statistics and parameters, so that it changes its input."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.2)
    model.double().eval()
    return model


def images_and_labels(count: int = 3, size: int = 8) -> tuple[Tensor, Tensor]:
    """Return images in double precision, and labels of four classes."""
    generator = torch.Generator().manual_seed(1)
    return torch.randn(count, 3, size, size, generator=generator, dtype=torch.float64), torch.arange(count) % 4


def by_layer(
    method: type,
    model: nn.Module,
    layers: Sequence[str],
    x: Tensor,
    y: Tensor,
    *,
    rule: type[PropagationRule] = EpsilonRule,
    **options: Any,
) -> dict[str, Tensor]:
    """Return captum's attribution of each layer, reduced to one number a unit."""
    found = {}
    for name in layers:
        set_captum_rules(model, rule)
        value = method(model, model.get_submodule(name)).attribute(x.clone().requires_grad_(), target=y, **options)
        found[name] = mean_abs(value, layer_site(model, name).axis)
    return found


def cnn() -> tuple[nn.Module, nn.Module, int]:
    model = randomise_norms(Cnn())
    return model, model, 8


def residual() -> tuple[nn.Module, nn.Module, int]:
    """Return torchvision's model, whose ReLUs act in place and are used twice, and a copy that captum supports."""
    model = resnet18(num_classes=4)
    randomise_norms(model)
    return model, for_captum(model), 32


class Mlp(nn.Module):
    """Linear layers on a flattened image; captum's LRP has no rule for `nn.Flatten`."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(192, 9), nn.ReLU(), nn.Linear(9, 6), nn.Tanh(), nn.Linear(6, 4))

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.layers(x.flatten(1))
        return logits


def perceptron() -> tuple[nn.Module, nn.Module, int]:
    model = Mlp().double()
    return model, model, 8


PLAIN: dict[str, Callable[[], tuple[nn.Module, nn.Module, int]]] = {"mlp": perceptron, "cnn": cnn, "resnet18": residual}
