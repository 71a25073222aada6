"""Metrics of continual learning as torchmetrics classes; `metrics.functional` has them as pure functions.

Related metrics share a file. To add a metric of the accuracy matrix, write its function in `functional/` and subclass
`MatrixMetric`; one of the tasks' masks subclasses `MaskMetric`. Classes hold state and checks, functions the equations.
"""

from fgadahat_hooks.metrics.accuracy import (
    AccuracyMatrix,
    AverageAccuracy,
    AverageIncrementalAccuracy,
    LearningAccuracy,
)
from fgadahat_hooks.metrics.base import MatrixMetric
from fgadahat_hooks.metrics.capacity import NetworkCapacity
from fgadahat_hooks.metrics.forgetting import Forgetting, Intransigence
from fgadahat_hooks.metrics.masks import CumulativeMaskUse, FreeUnitFraction, MaskMetric, MaskOverlap, MaskUse
from fgadahat_hooks.metrics.ratio import ForgettingRatio, ForgettingRatioIndependent
from fgadahat_hooks.metrics.transfer import BackwardTransfer, ForwardTransfer, ForwardTransferGEM

__all__ = [
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
]
