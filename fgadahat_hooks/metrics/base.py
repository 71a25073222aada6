"""What the metrics of an accuracy matrix share: the counts, and how they are fed."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Hashable, Sequence
from functools import wraps
from typing import Any

import torch
from torch import Tensor, nn

from fgadahat_hooks.metrics.functional.matrix import Reference, checked_reference
from fgadahat_hooks.metrics.inputs import TaskIds, checked_tasks, columns_of, hits_of, row_of
from fgadahat_hooks.metrics.plotted import PlottedMetric


class MatrixMetric(PlottedMetric):
    """A number read from the accuracy matrix; a subclass says which in `of_matrix`.

    All of them count the same: correct and seen samples after each task, on each task. So they share one compute group
    in a `MetricCollection`, and processes add up their samples. All metrics of one collection need the same `tasks`.
    """

    full_state_update = False

    correct: Tensor
    seen: Tensor

    def __init__(self, tasks: int | Sequence[Hashable], **kwargs: Any) -> None:
        """Begin with nothing measured.

        Args:
            tasks: Ids of the tasks in the order of learning; a number stands for the ids 0, 1, 2 and so on.
            **kwargs: Options of `torchmetrics.Metric`.

        Raises:
            BadCallError: `tasks` is neither.
        """
        super().__init__(**kwargs)
        self.tasks = checked_tasks(tasks)
        self._index = {task: number for number, task in enumerate(self.tasks)}
        zeros = torch.zeros(len(self.tasks), len(self.tasks), dtype=torch.long)
        self.add_state("correct", zeros, dist_reduce_fx="sum")
        self.add_state("seen", zeros.clone(), dist_reduce_fx="sum")

    def update(self, preds: Tensor, target: Tensor, *, learnt: Hashable, task: TaskIds) -> None:
        """Count a batch.

        Args:
            preds: Labels, `(batch,)` integers, or scores, `(batch, classes)`, whose largest decides.
            target: True labels, `(batch,)` integers.
            learnt: Id of the task that was learnt last.
            task: Id of the task that the batch is of, or a list, tuple or 1-d tensor with one id a sample.

        Raises:
            BadCallError: One of them has another form, or a task is not among the metric's. Nothing was counted.
        """
        hits = hits_of(preds, target)
        row = row_of(learnt, self._index)
        columns = torch.tensor(columns_of(task, len(hits), self._index), device=hits.device, dtype=torch.long)
        tasks = torch.arange(len(self.tasks), device=hits.device)
        of_task = (columns.unsqueeze(1) == tasks).expand(len(hits), -1)
        # Out of place: a state made in inference mode could not be changed in place outside it.
        at_row = (tasks == row).unsqueeze(1)
        self.correct = self.correct + at_row * (of_task & hits.unsqueeze(1)).sum(dim=0)
        self.seen = self.seen + at_row * of_task.sum(dim=0)

    def compute(self) -> Tensor:
        """Return the metric, in the type that `set_dtype` asks for; NaN where it is not defined."""
        wide = torch.promote_types(self.dtype, torch.float32)  # counts do not fit into half precision
        return self.of_matrix(self.correct.to(wide) / self.seen.to(wide)).to(self.dtype)

    @abstractmethod
    def of_matrix(self, matrix: Tensor) -> Tensor:
        """Return the metric of an accuracy matrix, `(tasks, tasks)`, NaN where nothing was measured."""

    def _apply(self, fn: Callable[[Tensor], Tensor], exclude_state: Sequence[str] = "") -> nn.Module:
        """Move the counts where they should be, but leave them whole numbers: half precision ends at 65504."""

        @wraps(fn)  # torchmetrics tells a cast by the function's name
        def moved(tensor: Tensor) -> Tensor:
            found = fn(tensor)
            return found if tensor.is_floating_point() or found.dtype == tensor.dtype else tensor.to(found.device)

        return super()._apply(moved, exclude_state)

    def _reference(self, value: Reference, name: str) -> Tensor:
        """Return one accuracy a task of another run, in double precision on the CPU: casting the metric spares it."""
        return checked_reference(value, self._blank(), name).detach().clone()

    def _blank(self) -> Tensor:
        """Return a matrix of the right size, without values."""
        return torch.empty(len(self.tasks), len(self.tasks), dtype=torch.float64, device="cpu")
