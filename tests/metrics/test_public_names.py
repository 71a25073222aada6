"""The public names of the metrics: sorted, documented, and no others."""

from __future__ import annotations

import inspect
from types import ModuleType

import pytest

from fgadahat_hooks import metrics
from fgadahat_hooks.metrics import functional
from tests.test_public_api import missing_sections

CLASSES = (
    "AccuracyMatrix",
    "AverageAccuracy",
    "AverageIncrementalAccuracy",
    "BackwardTransfer",
    "CumulativeMaskUse",
    "Forgetting",
    "ForgettingRatio",
    "ForgettingRatioIndependent",
    "ForwardTransfer",
    "ForwardTransferGEM",
    "FreeUnitFraction",
    "Intransigence",
    "LearningAccuracy",
    "MaskMetric",
    "MaskOverlap",
    "MaskUse",
    "MatrixMetric",
    "NetworkCapacity",
)
FUNCTIONS = (
    "average_accuracy",
    "average_incremental_accuracy",
    "backward_transfer",
    "cumulative_mask_use",
    "forgetting",
    "forgetting_ratio",
    "forgetting_ratio_independent",
    "forward_transfer",
    "forward_transfer_gem",
    "free_unit_fraction",
    "intransigence",
    "learning_accuracy",
    "mask_overlap",
    "mask_use",
)


@pytest.mark.parametrize(("module", "names"), [(metrics, CLASSES), (functional, FUNCTIONS)])
def test_names_are_what_was_promised(module: ModuleType, names: tuple[str, ...]) -> None:
    assert tuple(module.__all__) == names


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_are_documented(name: str) -> None:
    assert missing_sections(getattr(functional, name)) == []


@pytest.mark.parametrize("name", CLASSES)
def test_classes_say_what_they_take(name: str) -> None:
    made = getattr(metrics, name)
    text = (inspect.getdoc(made) or "") + (inspect.getdoc(made.__init__) or "")
    absent = [p for p in inspect.signature(made).parameters if f"{p}:" not in text]
    assert absent == []
