"""The tasks of one attached model: finished ones, the running one, and how the model runs as one of them."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

from torch.optim import Optimizer

from fgadahat_hooks.callbacks.base import CallbackList
from fgadahat_hooks.errors import NoTaskError, TaskRunningError
from fgadahat_hooks.gates.attached_model import AttachedModel
from fgadahat_hooks.gates.context import TaskContext
from fgadahat_hooks.gates.gate import GateMode
from fgadahat_hooks.gates.model_lock import in_autograd_thread
from fgadahat_hooks.gates.task_state import InterruptedTask, TaskId, TaskState
from fgadahat_hooks.graph.unit_graph import UnitGraph
from fgadahat_hooks.protection.doors import check_kept
from fgadahat_hooks.protection.keeping import keep_weights
from fgadahat_hooks.protection.late_comers import check_same_tensors
from fgadahat_hooks.tasks.branches import BranchWatch
from fgadahat_hooks.tasks.certificate import Certificate
from fgadahat_hooks.tasks.epoch_replay import EpochReplay


class RunningTask(Protocol):
    """The running task, as far as others need it; `tasks.task.Task` is one."""

    @property
    def id(self) -> TaskId:
        """The task's id."""
        ...

    def protects(self, optimizer: Optimizer) -> bool:
        """Return whether an optimizer was protected in this task."""
        ...

    def context(self) -> TaskContext:
        """Return what callbacks see of the task."""
        ...

    def start_after_trace(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Start what needs the unit graph, after the first batch was traced within this task; it is called with it."""
        ...

    def snapshot(self) -> InterruptedTask:
        """Return what a new process needs to resume this task."""
        ...


@dataclass(eq=False)
class TaskSequence:
    """One attached model and the tasks it learns, one after another.

    Attributes:
        attached: The model with its gates.
        callbacks: All that act at the events of a task, in the order they are called.
        state: Finished tasks.
        running: The running task.
        interrupted: A task that a loaded state is in the middle of, until it is resumed or rolled back.
        branches: Notices forwards that take an execution path no trace has seen; None until traced.
        certificate: Digests of finished tasks; None before the first `certify`.
        epoch_replay: The random state at the beginning of the epoch, to draw its batches again when it is resumed.
    """

    attached: AttachedModel
    callbacks: CallbackList
    state: TaskState = field(default_factory=TaskState)
    running: RunningTask | None = None
    interrupted: InterruptedTask | None = None
    branches: BranchWatch | None = None
    certificate: Certificate | None = None
    epoch_replay: EpochReplay = field(default_factory=EpochReplay)
    _thread: int | None = None

    # ---------------------------------------------------------------- the unit graph
    @property
    def graph(self) -> UnitGraph:
        """The unit graph, valid for every forward that has run.

        Raises:
            NoTaskError: The model has not been traced yet.
        """
        if not self.attached.traced:
            raise NoTaskError(
                "The model has not been traced yet: it will be on its first batch. Pass example_inputs to attach to "
                "trace at once."
            )
        self.retrace_pending()
        return self.attached.graph

    def watch_branches(self) -> None:
        """Notice, from now on, forwards that take an execution path no trace has seen."""
        self.branches = BranchWatch(self.attached, self)

    def retrace_pending(self) -> None:
        """Trace the new execution paths that forwards took, so that the graph is valid for them too."""
        if self.branches is not None and self.branches.pending:
            self.branches.retrace_pending()

    def graph_changed(self) -> None:
        """Keep what finished tasks read by the new graph; call `on_graph_change`, if a task is running."""
        if self.state.kept is not None:  # else the model's values may still have to be loaded
            self.keep_weights()
        if self.running is not None:
            context, attached = self.running.context(), self.attached
            context.graph, context.layers, context.readers = attached.graph, attached.layers(), attached.readers()
            self.callbacks.call("on_graph_change", context)

    # ---------------------------------------------------------------- what finished tasks read
    def check_kept(self, when: str) -> None:
        """Compare the values that finished tasks read with those that were kept, and put back what was changed.

        Args:
            when: What is about to happen, for the message: "when task 'a' ended".

        Raises:
            DetachedError: A layer with a gate was replaced.
            ModelChangedError: Tensors or heads have joined the model, left it or were replaced.
            WeightsChangedError: Putting back cannot be right.
        """
        with self.exclusive():
            self.attached.check_attached()
            check_same_tensors(self.attached, self.state)
            running = self.running is not None
            check_kept(self.attached, self.state, self.callbacks, when, running=running, by_value=True)

    def put_back_written(self) -> dict[str, int]:
        """Put back, without a word, what differs in tensors that were written into; return how many entries of each."""
        kept = self.state.kept
        if kept is None or not self.state.watched:
            return {}
        entries = kept.entries(self.running is not None)
        entries = {name: entries[name] for name in kept.written(entries)}
        changed = kept.differing(entries)
        rounded = {name for name in changed if kept.only_rounded(name, entries[name])}
        kept.put_back({name: entries[name] for name in changed})
        if entries:
            kept.see()
        return {name: count for name, count in changed.items() if name not in rounded}

    def restore_kept(self) -> None:
        """Put back what a task that was aborted has written; what soft rates have moved is kept from now on."""
        kept = self.state.kept
        if kept is not None and self.state.watched:
            entries = kept.entries(running=True)
            kept.put_back({name: entries[name] for name in kept.differing(entries)})
            kept.see()
        if kept is not None and not kept.hard:
            self.state.kept = None

    def keep_weights(self) -> None:
        """Keep the values that finished tasks read: those kept before, and the model's where there are more."""
        kept = self.state.kept
        if kept is not None and self.state.watched:
            entries = kept.entries(self.running is not None)
            kept.put_back({name: entries[name] for name in kept.differing(entries)})
        keep_weights(self.attached, self.state, self.callbacks)

    # ---------------------------------------------------------------- one at a time
    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Wait for the other threads that use the model, then run the block.

        Raises:
            TaskRunningError: A task is running in another thread.
        """
        with self.attached.gate_context.lock.hold():
            if self.running is not None and self._thread != threading.get_ident() and not in_autograd_thread():
                raise TaskRunningError(
                    f"Task {self.running.id!r} is running in another thread, and the model can be one task at a time. "
                    "Use the model in that thread, or after the task has ended."
                )
            yield

    def start(self, task: RunningTask) -> None:
        """Make a task the running one, in this thread, once no other thread uses the model.

        Raises:
            TaskRunningError: Another thread's task has begun meanwhile.
        """
        with self.exclusive():
            self.running, self.interrupted, self._thread = task, None, threading.get_ident()

    def stop(self) -> None:
        """End the running task."""
        self.running = None
        self.set_idle_mode()

    def set_idle_mode(self) -> None:
        """Set the gates to their mode between tasks: closed, or open before the first task."""
        begun = self.state.records or self.interrupted
        self.attached.gate_context.mode = GateMode.CLOSED if begun else GateMode.OPEN

    # ---------------------------------------------------------------- the model as a task
    @contextmanager
    def using(self, task: TaskId) -> Iterator[None]:
        """Run the block as a finished task: its masks in the gates, its own tensors in the model."""
        attached = self.attached
        with self.exclusive():
            record = self.state.record(task)
            masks = {n: m.to(attached.gates[n].embedding) for n, m in record.masks.items()}
            references = attached.tensors.references()
            try:
                with attached.gate_context.override(GateMode.USE, masks):
                    attached.tensors.enter(record.tensors, copy=False)
                    yield
            finally:
                if not attached.detached:  # else the block has detached the session, and the model stays this task
                    attached.tensors.leave(references)

    @contextmanager
    def using_running(self) -> Iterator[None]:
        """Run the block under the hard mask of the running task."""
        with self.exclusive():
            masks = {name: gate.hard_mask() for name, gate in self.attached.gates.items()}
            with self.attached.gate_context.override(GateMode.USE, masks):
                yield
