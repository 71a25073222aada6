"""The base of metrics of an accuracy matrix: it counts correct and seen samples."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Hashable, Sequence
from functools import wraps
from typing import Any

import torch
from torch import Tensor, nn

from fgadahat_hooks.metrics.functional.matrix import Reference, validated_reference
from fgadahat_hooks.metrics.inputs import TaskIds, column_indices, correct_predictions, row_index, validated_task_ids
from fgadahat_hooks.metrics.plotted import PlottedMetric


class MatrixMetric(PlottedMetric):
    """A metric of the accuracy matrix; subclasses implement `of_matrix`.

    All of them keep the same state: counts of correct and seen samples after each task, on each task. They share one
    compute group in a `MetricCollection`, whose metrics need the same `tasks`; processes sum their counts.
    """

    full_state_update = False

    correct: Tensor
    seen: Tensor

    def __init__(self, tasks: int | Sequence[Hashable], **kwargs: Any) -> None:
        """Start with zero counts.

        Args:
            tasks: Ids of the tasks in the order of learning; a number stands for the ids 0, 1, 2 and so on.
            **kwargs: Options of `torchmetrics.Metric`.

        Raises:
            BadCallError: `tasks` is neither, or names a task twice.
        """
        super().__init__(**kwargs)
        self.tasks = validated_task_ids(tasks)
        self._index = {task: number for number, task in enumerate(self.tasks)}
        zeros = torch.zeros(len(self.tasks), len(self.tasks), dtype=torch.long)
        self.add_state("correct", zeros, dist_reduce_fx="sum")
        self.add_state("seen", zeros.clone(), dist_reduce_fx="sum")

    def update(self, preds: Tensor, target: Tensor, *, learnt: Hashable, task: TaskIds) -> None:
        """Count a batch.

        Args:
            preds: Labels, `(batch,)` integers, or scores, `(batch, classes)`, of which the argmax counts.
            target: True labels, `(batch,)` integers.
            learnt: Id of the task learnt last.
            task: Id of the batch's task, or a list, tuple or 1-d tensor with one id a sample.

        Raises:
            BadCallError: An argument has another form, or a task is not among `tasks`. Nothing is counted.
        """
        hits = correct_predictions(preds, target)
        row = row_index(learnt, self._index)
        columns = torch.tensor(column_indices(task, len(hits), self._index), device=hits.device, dtype=torch.long)
        tasks = torch.arange(len(self.tasks), device=hits.device)
        of_task = (columns.unsqueeze(1) == tasks).expand(len(hits), -1)
        # Out of place: an inference tensor cannot be changed in place outside inference mode.
        at_row = (tasks == row).unsqueeze(1)
        self.correct = self.correct + at_row * (of_task & hits.unsqueeze(1)).sum(dim=0)
        self.seen = self.seen + at_row * of_task.sum(dim=0)

    def compute(self) -> Tensor:
        """Return the metric in the dtype set by `set_dtype`; NaN where it is not defined."""
        wide = torch.promote_types(self.dtype, torch.float32)  # half precision cannot hold large counts
        return self.of_matrix(self.correct.to(wide) / self.seen.to(wide)).to(self.dtype)

    @abstractmethod
    def of_matrix(self, matrix: Tensor) -> Tensor:
        """Return the metric of an accuracy matrix, `(tasks, tasks)`, NaN where nothing was measured."""

    def _apply(self, fn: Callable[[Tensor], Tensor], exclude_state: Sequence[str] = "") -> nn.Module:
        """Move the counts to another device, but keep them integers: half precision ends at 65504."""

        @wraps(fn)  # torchmetrics recognises a cast by the function's name
        def moved(tensor: Tensor) -> Tensor:
            result = fn(tensor)
            return result if tensor.is_floating_point() or result.dtype == tensor.dtype else tensor.to(result.device)

        return super()._apply(moved, exclude_state)

    def _validated_reference(self, value: Reference, name: str) -> Tensor:
        """Return one accuracy a task of another run, in float64 on the CPU; casts of the metric do not change it."""
        return validated_reference(value, self._empty_matrix(), name).detach().clone()

    def _empty_matrix(self) -> Tensor:
        """Return an uninitialised matrix of the metric's size."""
        return torch.empty(len(self.tasks), len(self.tasks), dtype=torch.float64, device="cpu")
