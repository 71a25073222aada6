"""Metrics of transfer: how learning a task changes accuracy on others."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

from torch import Tensor

from fgadahat_hooks.metrics.base import MatrixMetric
from fgadahat_hooks.metrics.functional.matrix import Reference
from fgadahat_hooks.metrics.functional.transfer import backward_transfer, forward_transfer, forward_transfer_gem


class BackwardTransfer(MatrixMetric):
    """Backward transfer `BWT = 1/(T-1) sum_{j<T} (a[T, j] - a[j, j])` (Lopez-Paz and Ranzato 2017).

    Below 0 is bad: later tasks made earlier ones worse. `T` is the last task after which anything was measured. NaN
    for `T < 2`, or if a task before it was not evaluated right after itself and after task `T`.

    Args:
        tasks: Ids of the tasks in the order of learning; a number stands for the ids 0, 1, 2 and so on.
        **kwargs: Options of `torchmetrics.Metric`.

    Example:
        >>> import torch
        >>> from fgadahat_hooks.metrics import BackwardTransfer
        >>> metric = BackwardTransfer(["birds", "cars"])
        >>> labels = torch.tensor([0, 1, 1, 0])
        >>> metric.update(torch.tensor([0, 1, 1, 1]), labels, learnt="birds", task="birds")
        >>> metric.update(torch.tensor([0, 1, 0, 1]), labels, learnt="cars", task="birds")
        >>> metric.compute()
        tensor(-0.2500)
    """

    plot_lower_bound: float | None = -1.0

    def of_matrix(self, matrix: Tensor) -> Tensor:
        """Return the mean change of earlier tasks' accuracy."""
        return backward_transfer(matrix)


class ForwardTransferGEM(MatrixMetric):
    """Forward transfer `FWT = 1/(T-1) sum_{2<=j<=T} (a[j-1, j] - b_j)` (Lopez-Paz and Ranzato 2017).

    Above 0 is good: earlier tasks help before a task is learnt. It has no meaning where a task has a head of its own,
    which is untrained until then; use `ForwardTransfer` there. `T` is the last task after which anything was measured.
    NaN for `T < 2`, or if a task up to it was not evaluated right before it was learnt.

    Args:
        tasks: Ids of the tasks in the order of learning; a number stands for the ids 0, 1, 2 and so on.
        untrained: Accuracy `b_j` of the model as initialised, `(tasks,)`, or a number for all tasks.
        **kwargs: Options of `torchmetrics.Metric`.
    """

    plot_lower_bound: float | None = -1.0

    def __init__(self, tasks: int | Sequence[Hashable], untrained: Reference, **kwargs: Any) -> None:
        """Start with zero counts; see the class."""
        super().__init__(tasks, **kwargs)
        self.untrained = self._validated_reference(untrained, "untrained")

    def of_matrix(self, matrix: Tensor) -> Tensor:
        """Return the mean head start over the untrained model."""
        return forward_transfer_gem(matrix, self.untrained)


class ForwardTransfer(MatrixMetric):
    """Forward transfer `FWT = 1/(T-1) sum_{2<=j<=T} (a[j, j] - a^I_j)`, against independent runs (CLArena).

    Above 0 is good: a task is learnt better after the earlier ones than alone. `T` is the last task after which
    anything was measured. NaN for `T < 2`, or if a task from the second to `T` was not evaluated right after it.

    Args:
        tasks: Ids of the tasks in the order of learning; a number stands for the ids 0, 1, 2 and so on.
        independent: Accuracy `a^I_j` of a model that learnt task j alone, `(tasks,)`, or a number for all tasks. That
            of the first task is not used.
        **kwargs: Options of `torchmetrics.Metric`.
    """

    plot_lower_bound: float | None = -1.0

    def __init__(self, tasks: int | Sequence[Hashable], independent: Reference, **kwargs: Any) -> None:
        """Start with zero counts; see the class."""
        super().__init__(tasks, **kwargs)
        self.independent = self._validated_reference(independent, "independent")

    def of_matrix(self, matrix: Tensor) -> Tensor:
        """Return the mean lead over the independent runs."""
        return forward_transfer(matrix, self.independent)
