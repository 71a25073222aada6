"""All of torchvision's classification models, on images as small as they take."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torchvision.models as published
from torch import nn

from tests.zoo.sweep.subject import CLASSES, Subject, images

SIZE = 64
SIZES = {"inception_v3": 299, "maxvit_t": 224}
"""Where 64 pixels are too few."""
BATCHES = {"vgg16": 8}
"""Where fewer samples leave a network without norms with outputs alike for all of them."""
OPTIONS: dict[str, dict[str, Any]] = {"googlenet": {"init_weights": True}, "inception_v3": {"init_weights": True}}
AUXILIARY = {"googlenet": ["aux1.**", "aux2.**"], "inception_v3": ["AuxLogits.**"]}
"""Heads that only training uses, so that a trace does not meet them."""
SLOW = 2e8
"""Parameters from which on a training step takes many seconds."""


def subjects() -> Iterator[Subject]:
    """Yield one subject a name."""
    for name in published.list_models(module=published):
        yield _subject(name)


def _subject(name: str) -> Subject:
    size = SIZES.get(name, SIZE)
    options = {**OPTIONS.get(name, {}), **({"image_size": _vit_size(name)} if name.startswith("vit_") else {})}
    size = options.get("image_size", size)
    parameters = published.get_model_weights(name).DEFAULT.meta["num_params"]
    auxiliary = AUXILIARY.get(name)
    return Subject(
        name,
        "torchvision",
        lambda: _make(name, options),
        images(size),
        spec={"gates": {"exclude": auxiliary}} if auxiliary else {},
        note="auxiliary heads not gated" if auxiliary else "",
        batch=BATCHES.get(name, 2 if size > 100 or parameters > SLOW else 4),
        rank=float(parameters),
    )


def _make(name: str, options: dict[str, Any]) -> nn.Module:
    model: nn.Module = published.get_model(name, weights=None, num_classes=CLASSES, **options)
    return model


def _vit_size(name: str) -> int:
    """Return two patches' width."""
    return 2 * int(name.rsplit("_", 1)[1])
