"""The unit graph of published models, against what really reaches every weight when random gates are closed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from tests.differential.truth import free_noise_matters, measure, never_vanishing, randomise

Build = Callable[[], tuple[nn.Module, Callable[[nn.Module], Any]]]


def torchvision(name: str, size: int = 64, **options: Any) -> Build:
    def build() -> tuple[nn.Module, Callable[[nn.Module], Any]]:
        models = pytest.importorskip("torchvision.models")
        x = torch.randn(2, 3, size, size)
        return models.get_model(name, weights=None, **options), lambda model: model(x)

    return build


def timm(name: str, size: int = 64) -> Build:
    def build() -> tuple[nn.Module, Callable[[nn.Module], Any]]:
        x = torch.randn(2, 3, size, size)
        return pytest.importorskip("timm").create_model(name, num_classes=7), lambda model: model(x)

    return build


def transformers(name: str, config: str, **options: Any) -> Build:
    def build() -> tuple[nn.Module, Callable[[nn.Module], Any]]:
        library = pytest.importorskip("transformers")
        ids = torch.randint(1, 50, (2, 6))
        model: nn.Module = getattr(library, name)(getattr(library, config)(vocab_size=50, **options))
        return model, lambda m: m(input_ids=ids)

    return build


SMALL = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}

MODELS: dict[str, Build] = {
    "resnet18": torchvision("resnet18"),
    "mobilenet_v3_small": torchvision("mobilenet_v3_small"),
    "densenet121": torchvision("densenet121"),
    "shufflenet_v2_x0_5": torchvision("shufflenet_v2_x0_5"),
    "efficientnet_b0": torchvision("efficientnet_b0"),
    "googlenet": torchvision("googlenet", aux_logits=False, init_weights=False),
    "squeezenet1_1": torchvision("squeezenet1_1"),
    "vgg11_bn": torchvision("vgg11_bn", 32),
    "convnext_tiny": torchvision("convnext_tiny", 32),
    "swin_t": torchvision("swin_t"),
    "vit_b_16": torchvision("vit_b_16", 32, image_size=32),
    "regnet_y_400mf": torchvision("regnet_y_400mf"),
    "timm resnet10t": timm("resnet10t"),
    "timm efficientvit_b0": timm("efficientvit_b0"),
    "timm tf_mobilenetv3_small_075": timm("tf_mobilenetv3_small_075"),
    "bert": transformers("BertForSequenceClassification", "BertConfig", **SMALL),
    "distilbert": transformers(
        "DistilBertForSequenceClassification", "DistilBertConfig", dim=16, n_layers=2, n_heads=2
    ),
    "llama": transformers("LlamaForSequenceClassification", "LlamaConfig", pad_token_id=0, **SMALL),
}
BOUNDED = {"timm efficientvit_b0": 0.97}
"""Linear attention sums products: a label keeps that some factor of each side is on, not that one product has both."""


def prepared(name: str) -> tuple[nn.Module, Callable[[nn.Module], Any]]:
    model, call = MODELS[name]()
    return randomise(model), call


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", MODELS)
def test_zero_means_zero(name: str) -> None:
    truth = measure(*prepared(name), draws=1)
    assert truth.wrong == ()
    assert truth.zero > 0


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", MODELS)
def test_every_zero_is_known(name: str) -> None:
    model, call = prepared(name)
    with never_vanishing():
        truth = measure(model, call, draws=1)
    assert truth.wrong == ()
    assert truth.exact > BOUNDED.get(name, 0.9999)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", MODELS)
def test_free_weights_do_not_matter(name: str) -> None:
    assert not free_noise_matters(*prepared(name))
