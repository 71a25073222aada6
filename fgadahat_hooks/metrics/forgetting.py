"""Metrics of accuracy lost on earlier tasks, and of accuracy that later tasks no longer reach."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

from torch import Tensor

from fgadahat_hooks.metrics.base import MatrixMetric
from fgadahat_hooks.metrics.functional.forgetting import Reduction, check_reduction, forgetting, intransigence
from fgadahat_hooks.metrics.functional.matrix import Reference


class Forgetting(MatrixMetric):
    """Forgetting measure `F = 1/(T-1) sum_{j<T} (max_{l<T} a[l, j] - a[T, j])` (Chaudhry et al. 2018, RWalk).

    Above 0 is bad. `F >= -BWT`, and equal if each task was at its best when it was learnt. `T` is the last task after
    which anything was measured. NaN for `T < 2`, or if a task before it was not evaluated after itself and after each
    later one. Accuracies on a task before it was learnt count in the maximum, as in the paper.

    Args:
        tasks: Ids of the tasks in the order of learning; a number stands for the ids 0, 1, 2 and so on.
        **kwargs: Options of `torchmetrics.Metric`.

    Example:
        >>> import torch
        >>> from fgadahat_hooks.metrics import Forgetting
        >>> metric = Forgetting(["birds", "cars"])
        >>> labels = torch.tensor([0, 1, 1, 0])
        >>> metric.update(torch.tensor([0, 1, 1, 1]), labels, learnt="birds", task="birds")
        >>> metric.update(torch.tensor([0, 1, 0, 1]), labels, learnt="cars", task="birds")
        >>> metric.compute()
        tensor(0.2500)
    """

    higher_is_better: bool | None = False
    plot_lower_bound: float | None = -1.0

    def of_matrix(self, matrix: Tensor) -> Tensor:
        """Return the mean drop from the best accuracy."""
        return forgetting(matrix)


class Intransigence(MatrixMetric):
    """Intransigence `I_k = a*_k - a[k, k]`: how much worse a task is learnt than jointly (Chaudhry et al. 2018).

    Above 0 is bad. `T` is the last task after which anything was measured. NaN where a task was not evaluated right
    after it.

    Args:
        tasks: Ids of the tasks in the order of learning; a number stands for the ids 0, 1, 2 and so on.
        joint: Accuracy `a*_k` on task k of a model that learnt tasks 1 to k together, `(tasks,)`, or a number for all
            tasks.
        reduction: `last` gives `I_T`, which the paper reports; `mean` the mean over `k <= T`; `none` every `I_k`.
        **kwargs: Options of `torchmetrics.Metric`.
    """

    higher_is_better: bool | None = False
    plot_lower_bound: float | None = -1.0
    plot_legend_name: str | None = "Task"

    def __init__(
        self, tasks: int | Sequence[Hashable], joint: Reference, reduction: Reduction = "last", **kwargs: Any
    ) -> None:
        """Start with zero counts; see the class."""
        super().__init__(tasks, **kwargs)
        self.joint = self._validated_reference(joint, "joint")
        self.reduction: Reduction = check_reduction(reduction)

    def of_matrix(self, matrix: Tensor) -> Tensor:
        """Return the difference to joint training."""
        return intransigence(matrix, self.joint, self.reduction)
