"""The metrics as functions of an accuracy matrix, or of the tasks' masks: tensors in, tensors out.

Related metrics share a file, and each function's docstring holds its equation; `matrix.py` checks the arguments. No
state and no torchmetrics here.
"""

from fgadahat_hooks.metrics.functional.accuracy import (
    average_accuracy,
    average_incremental_accuracy,
    learning_accuracy,
)
from fgadahat_hooks.metrics.functional.forgetting import forgetting, intransigence
from fgadahat_hooks.metrics.functional.masks import cumulative_mask_use, free_unit_fraction, mask_overlap, mask_use
from fgadahat_hooks.metrics.functional.ratio import forgetting_ratio, forgetting_ratio_independent
from fgadahat_hooks.metrics.functional.transfer import backward_transfer, forward_transfer, forward_transfer_gem

__all__ = [
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
]
