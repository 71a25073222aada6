"""Published models that are saved, and the process that loads them: `python -m tests.zoo.reload FOLDER NAME...`."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

import fgadahat_hooks as fh
from tests.support.zoo_models import BUILDERS, CLASSES, SIZE, images, randomise


def _timm(name: str) -> nn.Module:
    import timm

    model: nn.Module = timm.create_model(name, num_classes=CLASSES)
    return model


def _vit() -> nn.Module:
    import transformers

    sizes = {"hidden_size": 48, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4}
    options: dict[str, Any] = {"image_size": SIZE, "patch_size": 8, "num_labels": CLASSES, **sizes}
    return transformers.ViTForImageClassification(transformers.ViTConfig(**options))


def _resnet() -> nn.Module:
    import transformers

    sizes = {"embedding_size": 16, "hidden_sizes": [16, 32], "depths": [1, 1], "layer_type": "basic"}
    options: dict[str, Any] = {"num_labels": CLASSES, **sizes}
    return transformers.ResNetForImageClassification(transformers.ResNetConfig(**options))


MODELS: dict[str, Callable[[], nn.Module]] = {
    **{name: BUILDERS[name] for name in ("resnet18", "mobilenet_v3_small", "densenet121", "convnext_tiny", "swin_t")},
    "efficientnet_b0": BUILDERS["efficientnet_b0"],
    "timm resnet10t": lambda: _timm("resnet10t"),
    "timm tf_mobilenetv3_small_075": lambda: _timm("tf_mobilenetv3_small_075"),
    "transformers vit": _vit,
    "transformers resnet": _resnet,
}
SMALL = ("resnet18", "timm resnet10t", "transformers vit")
TASKS = ("birds", "cars")


def built(name: str) -> nn.Module:
    """Return a model whose values depend on torch's seed alone."""
    model = MODELS[name]()
    randomise(model, images(8))
    return model


def logits_of(model: nn.Module, x: Tensor) -> Tensor:
    """Return a model's logits; those of transformers come in an object."""
    out = model(x)
    found: Tensor = out if isinstance(out, Tensor) else out.logits
    return found


def all_logits(session: fh.Session) -> dict[str, Tensor]:
    """Return every task's logits on a few images."""
    session.model.eval()
    found = {}
    for task in TASKS:
        with torch.no_grad(), session.use(task):
            found[task] = logits_of(session.model, images(5, seed=99)).clone()
    return found


def main(folder: Path, names: list[str]) -> None:
    """Load each model of a folder, built with other values than it was saved with, and write its logits."""
    torch.set_num_threads(1)
    torch.manual_seed(1234)
    for name in names:
        session = fh.load(built(name), folder / name)
        save_file(all_logits(session), folder / f"{name}.safetensors")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
