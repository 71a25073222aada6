"""Metrics of accuracy: the whole matrix, and its means."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from torch import Tensor

from fgadahat_hooks.metrics.base import MatrixMetric
from fgadahat_hooks.metrics.functional.accuracy import (
    average_accuracy,
    average_incremental_accuracy,
    learning_accuracy,
)
from fgadahat_hooks.metrics.heat_map import as_square, heat_map

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


class AccuracyMatrix(MatrixMetric):
    """Accuracy `a[i, j]` on task j after learning task i, `(tasks, tasks)`, weighted by samples.

    NaN where nothing was measured. Rows and columns are in the order of `tasks`. With a single task the result is a
    scalar, because torchmetrics squeezes results with one element.

    Args:
        tasks: Ids of the tasks in the order of learning; a number stands for the ids 0, 1, 2 and so on.
        **kwargs: Options of `torchmetrics.Metric`.

    Example:
        >>> import torch
        >>> from fgadahat_hooks.metrics import AccuracyMatrix
        >>> matrix = AccuracyMatrix(["birds", "cars"])
        >>> labels = torch.tensor([0, 1, 1, 0])
        >>> matrix.update(torch.tensor([0, 1, 1, 1]), labels, learnt="birds", task="birds")
        >>> matrix.update(torch.tensor([0, 1, 0, 1]), labels, learnt="cars", task="birds")
        >>> matrix.update(torch.tensor([0, 1, 1, 0]), labels, learnt="cars", task="cars")
        >>> matrix.compute()
        tensor([[0.7500,    nan],
                [0.5000, 1.0000]])
    """

    def of_matrix(self, matrix: Tensor) -> Tensor:
        """Return the matrix itself."""
        return matrix

    def plot(
        self, val: Tensor | Sequence[Tensor] | None = None, ax: Axes | None = None, add_text: bool = True
    ) -> tuple[Figure | None, Axes]:
        """Draw a heat map, empty where nothing was measured.

        Args:
            val: A value of `compute` or `forward`, or a list of them, of which the last is drawn; `compute()` if None.
            ax: Axes to draw on; a new figure if None.
            add_text: Write the accuracies into the cells.

        Returns:
            The new figure, None if `ax` was given, and the axes.

        Raises:
            MissingDependencyError: matplotlib is not installed.
        """
        matrix = as_square(self.compute() if val is None else val)
        return heat_map(matrix, ax, self.tasks, "after learning", "accuracy on", add_text)


class AverageAccuracy(MatrixMetric):
    """Average accuracy `AA_T = (1/T) sum_{j<=T} a[T, j]` (Lopez-Paz and Ranzato 2017); higher is better.

    `T` is the last task after which anything was measured. NaN if a task up to it was not evaluated then.

    Args:
        tasks: Ids of the tasks in the order of learning; a number stands for the ids 0, 1, 2 and so on.
        **kwargs: Options of `torchmetrics.Metric`.

    Example:
        >>> import torch
        >>> from fgadahat_hooks.metrics import AverageAccuracy
        >>> metric = AverageAccuracy(tasks=10)
        >>> labels = torch.tensor([0, 1, 1, 0])
        >>> metric.update(torch.tensor([0, 1, 0, 1]), labels, learnt=1, task=0)
        >>> metric.update(torch.tensor([0, 1, 1, 0]), labels, learnt=1, task=1)
        >>> metric.compute()
        tensor(0.7500)
    """

    def of_matrix(self, matrix: Tensor) -> Tensor:
        """Return the mean of the last row measured."""
        return average_accuracy(matrix)


class AverageIncrementalAccuracy(MatrixMetric):
    """Average incremental accuracy `(1/T) sum_{k<=T} AA_k` (Rebuffi et al. 2017, iCaRL); higher is better.

    `T` is the last task after which anything was measured. NaN if any task up to it was not evaluated after itself and
    after each later one.

    Args:
        tasks: Ids of the tasks in the order of learning; a number stands for the ids 0, 1, 2 and so on.
        **kwargs: Options of `torchmetrics.Metric`.
    """

    def of_matrix(self, matrix: Tensor) -> Tensor:
        """Return the mean of the average accuracies."""
        return average_incremental_accuracy(matrix)


class LearningAccuracy(MatrixMetric):
    """Learning accuracy `LA = (1/T) sum_{j<=T} a[j, j]` (Riemer et al. 2019); higher is better.

    `T` is the last task after which anything was measured. NaN if a task up to it was not evaluated right after it.

    Args:
        tasks: Ids of the tasks in the order of learning; a number stands for the ids 0, 1, 2 and so on.
        **kwargs: Options of `torchmetrics.Metric`.
    """

    def of_matrix(self, matrix: Tensor) -> Tensor:
        """Return the mean of the diagonal."""
        return learning_accuracy(matrix)
