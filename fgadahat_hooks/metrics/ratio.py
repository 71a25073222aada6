"""Forgetting ratios: accuracy on a scale from random guessing (-1) to a reference model (0)."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

from torch import Tensor

from fgadahat_hooks.metrics.base import MatrixMetric
from fgadahat_hooks.metrics.functional.matrix import Reference
from fgadahat_hooks.metrics.functional.ratio import forgetting_ratio, forgetting_ratio_independent, validated_joint


class ForgettingRatio(MatrixMetric):
    """Forgetting ratio `1/T sum_{j<=T} (a[T, j] - a^R_j) / (a^J[T, j] - a^R_j) - 1` (Serrà et al. 2018, HAT, Eq. 6).

    0 is as good as joint training, -1 as bad as guessing; below 0 is bad. `T` is the last task after which anything
    was measured. NaN if a task up to it was not evaluated then, or if there is one joint model only and tasks are yet
    to be learnt.

    Args:
        tasks: Ids of the tasks in the order of learning; a number stands for the ids 0, 1, 2 and so on.
        joint: Accuracy of joint training. `(tasks, tasks)`: `a^J[t, j]` on task j of a model that learnt tasks 1 to t
            together, as in the paper. `(tasks,)`, or a number: one model that learnt all tasks together, as in CLArena.
        random: Accuracy `a^R_j` of guesses that follow the classes' frequencies, `(tasks,)`, or a number for all tasks.
        **kwargs: Options of `torchmetrics.Metric`.

    Example:
        >>> import torch
        >>> from fgadahat_hooks.metrics import ForgettingRatio
        >>> metric = ForgettingRatio(["birds", "cars"], joint=[1.0, 0.75], random=0.5)
        >>> labels = torch.tensor([0, 1, 1, 0])
        >>> metric.update(torch.tensor([0, 1, 1, 1]), labels, learnt="cars", task="birds")
        >>> metric.update(torch.tensor([0, 1, 1, 1]), labels, learnt="cars", task="cars")
        >>> metric.compute()
        tensor(-0.2500)
    """

    plot_lower_bound: float | None = None
    plot_upper_bound: float | None = None

    def __init__(self, tasks: int | Sequence[Hashable], joint: Reference, random: Reference, **kwargs: Any) -> None:
        """Start with zero counts; see the class."""
        super().__init__(tasks, **kwargs)
        self.joint = validated_joint(joint, self._empty_matrix()).detach().clone()
        self.random = self._validated_reference(random, "random")

    def of_matrix(self, matrix: Tensor) -> Tensor:
        """Return the mean ratio, less 1."""
        return forgetting_ratio(matrix, self.joint, self.random)


class ForgettingRatioIndependent(MatrixMetric):
    """Forgetting ratio against independent runs, `1/T sum_{j<=T} (a[T, j] - a^R_j) / (a^I_j - a^R_j) - 1` (CLArena).

    0 is as good as a model for each task, -1 as bad as guessing; below 0 is bad, and values above 0 are kept as they
    are. `T` is the last task after which anything was measured. NaN if a task up to it was not evaluated then.

    Args:
        tasks: Ids of the tasks in the order of learning; a number stands for the ids 0, 1, 2 and so on.
        independent: Accuracy `a^I_j` of a model that learnt task j alone, `(tasks,)`, or a number for all tasks.
        random: Accuracy `a^R_j` of guesses that follow the classes' frequencies, `(tasks,)`, or a number for all tasks.
        **kwargs: Options of `torchmetrics.Metric`.
    """

    plot_lower_bound: float | None = None
    plot_upper_bound: float | None = None

    def __init__(
        self, tasks: int | Sequence[Hashable], independent: Reference, random: Reference, **kwargs: Any
    ) -> None:
        """Start with zero counts; see the class."""
        super().__init__(tasks, **kwargs)
        self.independent = self._validated_reference(independent, "independent")
        self.random = self._validated_reference(random, "random")

    def of_matrix(self, matrix: Tensor) -> Tensor:
        """Return the mean ratio, less 1."""
        return forgetting_ratio_independent(matrix, self.independent, self.random)
