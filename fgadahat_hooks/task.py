"""One task, from its first batch to its stored mask."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import Any, TypeVar

from torch import Tensor
from torch.optim import Optimizer

from fgadahat_hooks.callbacks.base import TaskContext
from fgadahat_hooks.errors import NoTaskError
from fgadahat_hooks.functional.mask import anneal
from fgadahat_hooks.gate import GateMode
from fgadahat_hooks.hooks import HookSet
from fgadahat_hooks.loss_term import LossTerm
from fgadahat_hooks.runtime import Runtime
from fgadahat_hooks.state import RunningTask, TaskId, TaskRecord
from fgadahat_hooks.steps import ProtectedSteps
from fgadahat_hooks.swap import TaskSwap
from fgadahat_hooks.task_checks import check_can_begin

T = TypeVar("T")
AnyOptimizer = TypeVar("AnyOptimizer", bound=Optimizer)


class Task:
    """A running task; made by `session.task`, used as a context manager.

    Leaving the block cleanly ends the task: its mask, its own tensors and its importance are stored. Leaving it by an
    exception stores nothing and puts the tensors that every task has for itself back as they were before.

    Attributes:
        id: The task's id.
    """

    def __init__(
        self, runtime: Runtime, task: TaskId, num_classes: int | None, resume: RunningTask | None = None
    ) -> None:
        """Change nothing yet."""
        self.id = task
        self._runtime = runtime
        self._num_classes = num_classes
        self._resume = resume
        self.hooks = HookSet()
        self._context: TaskContext | None = None
        self._steps: ProtectedSteps | None = None
        self._swap = TaskSwap(runtime, num_classes)
        self._term = LossTerm(runtime)
        self._data: Any = None

    # ---------------------------------------------------------------- begin and end
    def __enter__(self) -> Task:
        """Begin the task, or go on in it.

        Raises:
            TaskRunningError: Another task is running.
            DuplicateTaskError: A task of this id is finished.
            BadCallError: The id or the number of classes cannot be used.
        """
        check_can_begin(self._runtime, self.id, self._num_classes, self._resume)
        runtime = self._runtime
        runtime.start(self)
        try:
            self._swap.remember(self._resume)
            self._steps = ProtectedSteps(runtime, self.context, [] if self._resume else self._swap.begin())
            runtime.gate_context.mode = GateMode.TASK
            runtime.gate_context.set_scale(runtime.spec.gates.s_max)
            if runtime.traced:
                self.context()
            if self._resume is not None:
                self._go_on(self._steps, self._resume)
        except BaseException:
            self._abort()
            raise
        return self

    def _go_on(self, steps: ProtectedSteps, resume: RunningTask) -> None:
        """Take back what the interrupted task had gathered; its tensors are in the model."""
        self._runtime.gate_context.set_scale(resume.scale)
        steps.annealed, steps.count = resume.annealed, resume.steps
        self._runtime.callbacks.load_state_dict(resume.callbacks)
        self._resume = None

    def prepare(self) -> None:
        """Give the head its number of outputs now, ahead of the block; its values are drawn when the block begins.

        For trainers that wrap the model, or build the optimizer, before the block can be entered. `drop` takes it back.

        Raises:
            FgadahatError: What the block itself would raise.
        """
        check_can_begin(self._runtime, self.id, self._num_classes, self._resume)
        self._swap.resize_heads()

    def drop(self) -> None:
        """Leave the task as an exception would: nothing is stored. Does nothing if it has ended."""
        if self._runtime.task is self:
            self._abort()
        else:
            self._swap.shrink_back()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the task, or forget it if the block raised."""
        if self._runtime.task is not self:
            return
        if kind is not None:
            self._abort()
            return
        try:
            record, context = self._finish()
        except BaseException:
            self._abort()
            raise
        state = self._runtime.state
        state.records[self.id] = record
        if context.summed_importance is not None:
            state.summed_importance = context.summed_importance
        self._runtime.frozen = self._runtime.frozen_names()
        self._close()

    def _finish(self) -> tuple[TaskRecord, TaskContext]:
        context = self.context()
        context.record = self._swap.record(self.id)
        self._runtime.callbacks.call("on_task_end", context)
        return context.record, context

    def _abort(self) -> None:
        """Put back what the task had replaced; stored tasks were never touched."""
        if self._context is not None:
            self._runtime.callbacks.call("on_task_abort", self._context)
        self._swap.roll_back()
        self._close()

    def _close(self) -> None:
        runtime = self._runtime
        if self._context is not None:
            self._context.hooks.close()
        self.hooks.close()
        self._swap.forget()
        runtime.task = None
        runtime.gate_context.mode = runtime.rest_mode()

    def snapshot(self) -> RunningTask:
        """Return what a new process needs to go on in this task, beside the model's own values.

        Raises:
            NoTaskError: The task has ended.
        """
        steps, callbacks = self._running(), self._runtime.callbacks.state_dict()
        done = (self.scale, steps.annealed, steps.count)
        return RunningTask(self.id, self._num_classes, *done, *self._swap.before(), callbacks)

    @property
    def steps(self) -> int:
        """Number of real optimizer steps made in this task."""
        return 0 if self._steps is None else self._steps.count

    @property
    def scale(self) -> float:
        """Gate scale `s` of the current batch."""
        return float(self._runtime.gate_context.scale)

    # ---------------------------------------------------------------- what a loop calls
    def context(self) -> TaskContext:
        """Return what callbacks see of this task; made at the first call after the trace."""
        if self._context is None:
            self._running()
            if not self._runtime.traced:
                raise NoTaskError("The model has not been traced yet: run a forward, or pass example_inputs to attach.")
            self._context = self._runtime.context(self.id)
            self._context.data = self._data
            self._runtime.callbacks.call("on_task_start", self._context)
        return self._context

    def start_late(self) -> None:
        """Start what needs the trace, after the first batch was traced in this task."""
        self._swap.remember_tensors()
        self.context()

    def protect(self, optimizer: AnyOptimizer, *, single_closure: bool = False) -> AnyOptimizer:
        """Protect finished tasks from an optimizer, and let its steps drive the callbacks.

        Everything happens in the optimizer's step hooks, once a real step: one that a gradient scaler skips or that
        accumulation leaves out does not count. Protect one optimizer or several; one that is kept, in each task.

        Args:
            optimizer: The optimizer.
            single_closure: `step(closure)` calls the closure exactly once, before it moves anything, as all of torch's
                optimizers do but LBFGS: gradients are looked at after that call.

        Returns:
            The optimizer.

        Raises:
            NoTaskError: The task has ended.
            BadCallError: It is no `torch.optim.Optimizer`.
            ForeignOptimizerError: It holds no parameter of the model.
        """
        self._running().add(optimizer, single_closure)
        return optimizer

    def gradients_ready(self, optimizer: Optimizer) -> None:
        """Say that the gradients of a step are complete, before you clip them.

        Importance is measured on gradients before clipping. A loop that clips between `backward` and `step` calls this
        in front of it; in any other loop the step itself is early enough.

        Raises:
            NoTaskError: The task has ended.
            ForeignOptimizerError: The optimizer is not protected in this task.
        """
        self._running().gradients_ready(optimizer)

    def protects(self, optimizer: Optimizer) -> bool:
        """Return whether an optimizer was protected in this task."""
        return self._steps is not None and optimizer in self._steps

    def anneal(self, batch: int, num_batches: int) -> float:
        """Set and return the gate scale for a batch of an epoch (HAT Eq. 3).

        Args:
            batch: Number of the batch in its epoch, counted from 1.
            num_batches: Number of batches of the epoch.

        Returns:
            The scale `s`: `1/s_max` for the first batch, exactly `s_max` for the last.

        Raises:
            NoTaskError: The task has ended.
            BadCallError: `batch` is not within 1 and `num_batches`.
        """
        steps, context = self._running(), self._runtime.gate_context
        scale = anneal(batch, num_batches, context.s_max, self._runtime.spec.gates.annealing_power)
        context.set_scale(scale)
        steps.annealed = True
        return scale

    def begin_batch(self, batch: int, num_batches: int, data: Any = None) -> None:
        """Anneal, and tell the callbacks that a batch begins. `batches` does it for you.

        Args:
            batch: Number of the batch in its epoch, counted from 1.
            num_batches: Number of batches of the epoch.
            data: What the loader gave: inputs and labels. Attribution measures find the true labels in it.
        """
        self.anneal(batch, num_batches)
        self._data = data
        if self._context is not None:
            self._context.data = data
            self._runtime.callbacks.call("on_train_batch_start", self._context)

    def end_batch(self) -> None:
        """Tell the callbacks that a batch has ended. `batches` does it for you."""
        if self._context is not None:
            self._runtime.callbacks.call("on_train_batch_end", self._context)

    def batches(
        self, loader: Iterable[T], *, num_batches: int | None = None, start: int = 0, progress: bool = False
    ) -> Iterator[T]:
        """Go over the batches of one epoch, annealing the gates from `1/s_max` to `s_max`.

        Args:
            loader: A `DataLoader` or any iterable of batches.
            num_batches: Number of batches; needed if the loader has no length.
            start: How many batches of this epoch were trained on before an interruption: drawn again and left out.
            progress: Show a progress bar (needs `rich`; silent when not on a terminal).

        Yields:
            The loader's batches.

        Raises:
            BadCallError: The number of batches cannot be told, or the loader gives more than that.
        """
        from fgadahat_hooks.adapters.loop import batches

        source = self._runtime.draws.follow(loader, start, num_batches)
        return batches(self, source, num_batches=num_batches, start=start, progress=progress)

    def regularization(self) -> Tensor:
        """Return the sparsity term `c R` to add to the loss, a scalar with gradient to the embeddings (HAT Eq. 5).

        Raises:
            NoTaskError: The task has ended.
        """
        self._running()
        return self._term.value(None if self._context is None else self._context.cumulative)

    def _running(self) -> ProtectedSteps:
        if self._runtime.task is not self or self._steps is None:
            block = f"`with session.task({self.id!r}) as task:`"
            raise NoTaskError(f"Task {self.id!r} is not running. Use it inside its own block: {block}.")
        return self._steps

    def __repr__(self) -> str:
        """Show the id and whether it runs."""
        return f"Task({self.id!r}, {'running' if self._runtime.task is self else 'not running'})"
