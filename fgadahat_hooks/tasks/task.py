"""The running task, as a training loop sees it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

from torch import Tensor
from torch.optim import Optimizer

from fgadahat_hooks.gates.task_state import InterruptedTask, NumClasses, TaskId
from fgadahat_hooks.tasks.batches import batches
from fgadahat_hooks.tasks.length import TaskLength
from fgadahat_hooks.tasks.lifecycle import TaskLifecycle
from fgadahat_hooks.tasks.sequence import TaskSequence
from fgadahat_hooks.tasks.sparsity_term import SparsityTerm

T = TypeVar("T")
AnyOptimizer = TypeVar("AnyOptimizer", bound=Optimizer)


class Task(TaskLifecycle):
    """A running task; made by `session.task`, used as a context manager.

    Leaving the block cleanly ends the task: its mask, its own tensors and its importance are stored. Leaving it by an
    exception stores nothing and restores the tensors that every task has for itself.

    Attributes:
        id: The task's id.
        hooks: Hooks put here live until the task ends.
    """

    def __init__(
        self,
        sequence: TaskSequence,
        task: TaskId,
        num_classes: NumClasses | None,
        resume: InterruptedTask | None = None,
        length: TaskLength | None = None,
    ) -> None:
        """Change nothing yet; see `TaskLifecycle`."""
        super().__init__(sequence, task, num_classes, resume, length)
        self._term = SparsityTerm(sequence.attached)

    def tell_length(self, *, epochs: int | None = None, steps: int | None = None) -> None:
        """Tell how long the task will be, unless `session.task` was told; trainers call it when they begin.

        Args:
            epochs: Number of epochs.
            steps: Number of optimizer steps.

        Raises:
            BadCallError: Both are given, or one is not a whole number above 0.
        """
        told = TaskLength(epochs, steps)
        if not self._schedule.length.known:
            self._schedule.length = told

    def protect(self, optimizer: AnyOptimizer, *, single_closure: bool = False) -> AnyOptimizer:
        """Protect finished tasks from an optimizer, and call the callbacks around its steps.

        Everything happens in the optimizer's step hooks, once a real step: a step that a gradient scaler skips or that
        accumulation leaves out does not count. Protect one optimizer or several; one kept across tasks, in each task.

        Args:
            optimizer: The optimizer.
            single_closure: `step(closure)` calls the closure exactly once, before it changes any parameter, as all of
                torch's optimizers do but LBFGS: callbacks see the gradients after that call.

        Returns:
            The optimizer.

        Raises:
            NoTaskError: The task has ended.
            BadCallError: It is no `torch.optim.Optimizer`.
            ForeignOptimizerError: It holds no parameter of the model.
        """
        self._running_steps().add(optimizer, single_closure)
        return optimizer

    def gradients_ready(self, optimizer: Optimizer) -> None:
        """Announce that the gradients of a step are complete, before you clip them.

        Importance is measured on gradients before clipping. A loop that clips between `backward` and `step` calls this
        before clipping; any other loop need not, because the step itself is early enough.

        Raises:
            NoTaskError: The task has ended.
            ForeignOptimizerError: The optimizer is not protected in this task.
        """
        self._running_steps().gradients_ready(optimizer)

    def anneal(self, batch: int, num_batches: int) -> float:
        """Set and return the gate scale for a batch of an epoch (HAT Eq. 3), or of the task (`gates.annealing`).

        With `annealing: task` and a known length, the scale rises over the first part of the task; in the rest
        (`gates.settle`) the mask is fixed and hard.

        Args:
            batch: Number of the batch in its epoch, counted from 1.
            num_batches: Number of batches of the epoch.

        Returns:
            The scale `s`: `1/s_max` for the first batch, exactly `s_max` at the end.

        Raises:
            NoTaskError: The task has ended.
            BadCallError: `batch` is not within 1 and `num_batches`.
        """
        steps, context = self._running_steps(), self._attached.gate_context
        scale = self._schedule.scale(batch, num_batches, steps.count)
        context.set_scale(scale)
        if self._schedule.settled(num_batches, steps.count):
            steps.fix_masks()
        steps.annealed = True
        return scale

    def begin_batch(self, batch: int, num_batches: int, data: Any = None) -> None:
        """Anneal, and call the callbacks' `on_train_batch_start`. `batches` does it for you.

        Args:
            batch: Number of the batch in its epoch, counted from 1.
            num_batches: Number of batches of the epoch.
            data: What the loader gave: inputs and labels. Attribution measures find the true labels in it.
        """
        self.anneal(batch, num_batches)
        self._running_steps().between.check("before a batch")
        self._data = data
        if self._context is not None:
            self._context.data = data
            self._sequence.callbacks.call("on_train_batch_start", self._context)

    def end_batch(self) -> None:
        """Call the callbacks' `on_train_batch_end`. `batches` does it for you."""
        if self._context is not None:
            self._sequence.callbacks.call("on_train_batch_end", self._context)

    def batches(
        self, loader: Iterable[T], *, num_batches: int | None = None, start: int = 0, progress: bool = False
    ) -> Iterator[T]:
        """Iterate over the batches of one epoch, annealing the gates from `1/s_max` to `s_max`.

        Args:
            loader: A `DataLoader` or any iterable of batches.
            num_batches: Number of batches; needed if the loader has no length.
            start: How many batches of this epoch were trained on before an interruption: drawn again and skipped.
            progress: Show a progress bar (needs `rich`; silent when not on a terminal).

        Yields:
            The loader's batches.

        Raises:
            BadCallError: The number of batches is not known, or the loader gives more than that.
        """
        source = self._sequence.epoch_replay.wrap(loader, start, num_batches)
        return batches(self, source, num_batches=num_batches, start=start, progress=progress)

    def regularization(self) -> Tensor:
        """Return the sparsity term `c R` to add to the loss, a scalar with gradient to the embeddings (HAT Eq. 5).

        Raises:
            NoTaskError: The task has ended.
        """
        self._running_steps()
        return self._term.value(None if self._context is None else self._context.cumulative)
