"""How a task begins and ends, and how it is resumed after an interruption."""

from __future__ import annotations

import warnings
from types import TracebackType
from typing import Any, TypeVar

import torch
from torch.optim import Optimizer

from fgadahat_hooks.errors import LearningWarning, NoTaskError
from fgadahat_hooks.gates.context import TaskContext
from fgadahat_hooks.gates.gate import GateMode
from fgadahat_hooks.gates.task_state import InterruptedTask, NumClasses, TaskId, TaskRecord
from fgadahat_hooks.hooks import HookSet
from fgadahat_hooks.protection.steps import ProtectedSteps
from fgadahat_hooks.tasks.checks import check_can_begin
from fgadahat_hooks.tasks.gain_calibration import GainCalibration
from fgadahat_hooks.tasks.learning_notes import Masks, few_free_units, notes_on_room, notes_on_training
from fgadahat_hooks.tasks.length import Schedule, TaskLength
from fgadahat_hooks.tasks.norm_statistics import measure_norm_statistics, norms_to_measure
from fgadahat_hooks.tasks.outcome import MAX_FORWARDS, outcome_of
from fgadahat_hooks.tasks.recent_forwards import RecentForwards
from fgadahat_hooks.tasks.sequence import TaskSequence
from fgadahat_hooks.tasks.task_entry import TaskEntry
from fgadahat_hooks.tasks.task_record import make_record

AnyTask = TypeVar("AnyTask", bound="TaskLifecycle")

MEASURED_FORWARDS = 64
"""Over how many of its last forwards the statistics of a task's norms are averaged, at most."""


class TaskLifecycle:
    """Begins a task, and ends it: stores what it learnt, or restores what was there before.

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
        """Change nothing yet.

        Args:
            sequence: The attached model and its tasks.
            task: Id of the task.
            num_classes: Number of outputs of its head; as at attach when left out.
            resume: What an interrupted task left, to continue it.
            length: How long the task will be, if that is known.
        """
        self.id = task
        self.hooks = HookSet()
        self._sequence = sequence
        self._attached = sequence.attached
        self._num_classes = num_classes
        self._resume = resume
        self._entry = TaskEntry(sequence, num_classes)
        self._steps: ProtectedSteps | None = None
        self._context: TaskContext | None = None
        self._recent = RecentForwards()
        self._calibration: GainCalibration | None = None
        self._schedule = Schedule(self._attached.spec.gates, length or TaskLength())
        self._warned: list[str] = []
        self._data: Any = None  # of the current batch, for a context that is made later

    # ---------------------------------------------------------------- begin
    def __enter__(self: AnyTask) -> AnyTask:
        """Begin the task, or resume it.

        Raises:
            TaskRunningError: Another task is running.
            DuplicateTaskError: A task of this id is finished.
            BadCallError: The id or the number of classes cannot be used.
            WeightsChangedError: What finished tasks read was changed since the last task, and cannot be put back.
        """
        check_can_begin(self._sequence, self.id, self._num_classes, self._resume)
        self._sequence.check_kept(f"when task {self.id!r} began")
        self._sequence.start(self)
        try:
            self._begin()
        except BaseException:
            self._abort()
            raise
        return self

    def _begin(self) -> None:
        sequence, attached = self._sequence, self._attached
        sequence.keep_weights()  # callbacks may have been added since
        self._entry.remember(self._resume)
        steps = ProtectedSteps(
            attached, sequence.state, sequence.callbacks, self.context, self._collect_forwards, self.hooks
        )
        steps.fresh = [] if self._resume else self._entry.enter()
        self._steps = steps
        attached.gate_context.mode = GateMode.TASK
        attached.gate_context.set_learning(attached.spec.gates.choose == "learn")
        attached.gate_context.set_scale(attached.spec.gates.s_max)
        if attached.traced:
            self.context()
        if self._resume is not None:
            self._restore(steps, self._resume)
        elif attached.traced:
            self._calibration = GainCalibration(attached, sequence.state)
            self._calibration.start(self.hooks)
        if attached.traced:
            self._keep_forwards()

    def _collect_forwards(self) -> None:
        """Take in what forwards left since the last step: new execution paths, and inputs of compiled code."""
        self._sequence.retrace_pending()
        if self._recent.collect() and self._calibration is not None and self._calibration.pending:
            self._calibration.run_again(self._recent)

    def _restore(self, steps: ProtectedSteps, resume: InterruptedTask) -> None:
        """Restore what the interrupted task had gathered; its tensors are in the model."""
        self._attached.gate_context.set_scale(resume.scale)
        steps.annealed, steps.count, steps.travel.total = resume.annealed, resume.steps, resume.travel
        self._sequence.callbacks.load_state_dict(resume.callbacks)
        self._recent.load(resume.inputs, resume.inputs_missing)
        if resume.length and not self._schedule.length.known:
            self._schedule.length = TaskLength(**resume.length, resumed=True)
        self._resume = None

    def prepare(self) -> None:
        """Give the head its number of outputs now, ahead of the block; its values are drawn when the block begins.

        For trainers that wrap the model, or build the optimizer, before the block can be entered. `drop` undoes it.

        Raises:
            FgadahatError: What the block itself would raise.
        """
        check_can_begin(self._sequence, self.id, self._num_classes, self._resume)
        self._entry.resize_heads()

    # ---------------------------------------------------------------- end
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the task, or roll it back if the block raised."""
        if self._sequence.running is not self:
            return
        if kind is not None:
            self._abort()
            return
        try:
            record, context = self._finish()
        except BaseException:
            self._abort()
            raise
        self._store(record, context)
        self._close()
        self._warn(record.notes)

    def _finish(self) -> tuple[TaskRecord, TaskContext]:
        context = self.context()
        self._running_steps().between.check(f"when task {self.id!r} ended")
        self._sequence.check_kept(f"when task {self.id!r} ended")
        self._collect_forwards()
        context.hooks.close()  # what callbacks hooked is for training; the forwards below are not
        failed = measure_norm_statistics(self._sequence, self._recent, self.steps > 0)
        context.record = make_record(self._attached, self._sequence.state, self.id, self._num_classes)
        self._assess(context.record, failed)
        self._sequence.callbacks.call("on_task_end", context)
        return context.record, context

    def _assess(self, record: TaskRecord, failed: str | None) -> None:
        """Add to a task's record how it went."""
        steps, attached, state = self._running_steps(), self._attached, self._sequence.state
        outcome = outcome_of(self._sequence, self._recent)
        record.reuse = outcome.reuse
        record.notes = notes_on_room(attached, Masks.of(attached, state), state.finished)
        unfinished = self._schedule.unfinished(steps.count)
        record.notes += notes_on_training(attached, steps.travel.total, unfinished, failed, outcome)

    def _warn(self, notes: list[str]) -> None:
        """Warn of what is noted and was not said before."""
        new = [note for note in notes if note not in self._warned]
        self._warned += new
        if new:
            warnings.warn(f"Task {self.id!r}: " + " Also: ".join(new), LearningWarning, stacklevel=3)

    def _store(self, record: TaskRecord, context: TaskContext) -> None:
        state = self._sequence.state
        state.records[self.id] = record
        if context.summed_importance is not None:
            state.summed_importance = context.summed_importance
        state.frozen = self._attached.frozen_names()
        self._sequence.keep_weights()
        self._running_steps().between.task_ended()

    def drop(self) -> None:
        """Leave the task as an exception would: nothing is stored. Does nothing if it has ended."""
        if self._sequence.running is self:
            self._abort()
        else:
            self._entry.undo_resize()

    def _abort(self) -> None:
        """Restore what the task had replaced; what finished tasks stored was never touched."""
        if self._context is not None:
            self._sequence.callbacks.call("on_task_abort", self._context)
        self._entry.roll_back()
        self._sequence.restore_kept()
        self._close()

    def _close(self) -> None:
        if self._context is not None:
            self._context.hooks.close()
        self.hooks.close()
        self._entry.release()
        self._recent.clear()
        self._attached.gate_context.set_learning(self._attached.spec.gates.choose == "learn")
        self._sequence.stop()

    # ---------------------------------------------------------------- while it runs
    def context(self) -> TaskContext:
        """Return what callbacks see of this task; made at the first call after the trace."""
        if self._context is None:
            self._running_steps()
            if not self._attached.traced:
                raise NoTaskError("The model has not been traced yet: run a forward, or pass example_inputs to attach.")
            self._context = self._attached.context(self.id, self._sequence.state)
            self._context.data = self._data
            self._sequence.callbacks.call("on_task_start", self._context)
        return self._context

    def start_after_trace(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Start what needs the unit graph, after the first batch was traced within this task.

        Args:
            args: The batch's positional arguments; its forward goes on now.
            kwargs: Its keyword arguments.
        """
        self._entry.remember_tensors()
        self._entry.take_weights()
        self._entry.rescale(fresh_head=True)
        self.context()
        self._keep_forwards()
        if self._attached.model.training and torch.is_grad_enabled():
            self._recent.keep(args, kwargs)

    def _keep_forwards(self) -> None:
        """Keep the last training forwards for the end of the task; say at once if the task lacks units."""
        attached, state = self._attached, self._sequence.state
        measured = bool(norms_to_measure(attached, state.finished == 0))
        most = MEASURED_FORWARDS if measured else MAX_FORWARDS
        self._recent.watch(attached, self.hooks, most, copy=measured, data=lambda: self._data)
        self._warn(few_free_units(attached, Masks.of(attached, state), state.finished))

    def protects(self, optimizer: Optimizer) -> bool:
        """Return whether an optimizer was protected in this task."""
        return self._steps is not None and optimizer in self._steps

    def snapshot(self) -> InterruptedTask:
        """Return what a new process needs to resume this task, beside the model's own values.

        Raises:
            NoTaskError: The task has ended.
        """
        steps, callbacks = self._running_steps(), self._sequence.callbacks.state_dict()
        progress, (inputs, missing) = (self.scale, steps.annealed, steps.count), self._recent.dump()
        return InterruptedTask(
            self.id, self._num_classes, *progress, *self._entry.before(), callbacks,
            inputs, self._schedule.length.dump(), steps.travel.total, missing,
        )  # fmt: skip

    @property
    def steps(self) -> int:
        """Number of real optimizer steps made in this task."""
        return 0 if self._steps is None else self._steps.count

    @property
    def scale(self) -> float:
        """Gate scale `s` of the current batch."""
        return float(self._attached.gate_context.scale)

    def _running_steps(self) -> ProtectedSteps:
        """Return what protects the optimizers of this task.

        Raises:
            NoTaskError: The task is not running.
        """
        if self._sequence.running is not self or self._steps is None:
            block = f"`with session.task({self.id!r}) as task:`"
            raise NoTaskError(f"Task {self.id!r} is not running. Use it inside its own block: {block}.")
        return self._steps

    def __repr__(self) -> str:
        """Show the id and whether it runs."""
        return f"Task({self.id!r}, {'running' if self._sequence.running is self else 'not running'})"
