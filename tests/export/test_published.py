"""A few published architectures, both exports; the long list is in `tests/zoo`."""

from __future__ import annotations

import pytest
import torch

from benchmarks.bench_export import Comparison, measure
from benchmarks.export_models import SUBJECTS, build

LIGHT = ("ResNet-18", "MobileNetV3-S", "SqueezeNet 1.1", "ViT (4 blocks of 128)")
FEWEST = {"ResNet-18": 1000, "MobileNetV3-S": 4000, "ShuffleNetV2 x1.0": 2000, "SqueezeNet 1.1": 1400}
"""Smallest number of units that must be removed."""
HARD_CODED_SIZES = ("timm: CSPResNet-50",)
"""Models with hard-coded sizes in their forward, so that only the comparison finds what must be kept."""


def check(name: str, found: Comparison) -> None:
    """Check what both exports promise."""
    assert found.bits
    assert found.agree
    assert found.difference <= 1e-5
    assert found.report.difference <= 1e-9
    assert found.report.double
    assert sum(found.report.removed.values()) >= FEWEST.get(name, 1)
    failed = [why for r in found.report.kept.values() for why in r if why.startswith("without it")]
    assert bool(failed) is (name in HARD_CODED_SIZES)


@pytest.mark.parametrize("name", LIGHT)
def test_both_exports(name: str) -> None:
    check(name, measure(name))


def test_logits_depend_on_the_image() -> None:
    """Logits that are equal for all images could not show a difference."""
    model, x = build("ResNet-18"), SUBJECTS["ResNet-18"].inputs(4, seed=1)
    with torch.no_grad():
        out = model(x)
    assert (out - out[0])[1:].abs().amax(1).min() > 1e-3 * out.abs().max()
