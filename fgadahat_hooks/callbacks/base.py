"""The events of a task."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from typing import Any, ClassVar

from torch.optim import Optimizer

from fgadahat_hooks.errors import DuplicateNameError
from fgadahat_hooks.gates.context import TaskContext


class Callback:
    """Base of everything that acts at the events of a task. Override the events you need.

    Attributes:
        key: Unique among the callbacks of a session; the name its state is saved under.
        priority: Callbacks are called in rising priority, equal ones in the order given. Importance is 10, summation
            20, gradient adjustment 90; a user's callback comes between them by default. An instance may set its own
            for the steps; `on_task_end` follows the priorities of the classes, so that importance is always there to
            be summed.
    """

    key: ClassVar[str] = ""
    priority: ClassVar[int] = 50

    def on_task_start(self, context: TaskContext) -> None:
        """A task has begun; embeddings and per-task tensors are in place."""

    def on_graph_change(self, context: TaskContext) -> None:
        """A forward took an execution path that no trace had recorded; the context's graph now covers it too.

        Layers, units and masks are the same; inputs may be fed by more units, or be always live.
        """

    def on_train_batch_start(self, context: TaskContext) -> None:
        """A batch is about to be used; the gate scale is set."""

    def on_gradients_ready(self, context: TaskContext, optimizer: Optimizer) -> None:
        """The gradients of a real step are complete, and neither clipped nor adjusted yet.

        Called right before `on_before_optimizer_step`, or earlier if the loop calls `task.gradients_ready`.

        Args:
            context: The running task.
            optimizer: The optimizer that is going to step.
        """

    def on_before_optimizer_step(self, context: TaskContext, optimizer: Optimizer) -> None:
        """An optimizer is about to make a real step; gradients are complete, parameters not yet changed.

        Args:
            context: The running task.
            optimizer: The optimizer that steps; a task may have several.
        """

    def on_after_optimizer_step(self, context: TaskContext, optimizer: Optimizer) -> None:
        """The optimizer has changed the parameters.

        Args:
            context: The running task.
            optimizer: The optimizer that has stepped.
        """

    def on_train_batch_end(self, context: TaskContext) -> None:
        """The loop has asked for the next batch."""

    def on_task_end(self, context: TaskContext) -> None:
        """The task ends cleanly; nothing is stored yet.

        Its masks and its own tensors are copied to `context.record` already: later changes to the model are not kept.
        """

    def on_task_abort(self, context: TaskContext) -> None:
        """The task was left by an exception; discard what belongs to it."""

    def state_dict(self) -> dict[str, Any]:
        """Return what must survive a restart: tensors, numbers, strings, None, and lists and dicts of them.

        Dicts have strings as keys. In the middle of a task it is called between two steps.
        """
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned; for a resumed task, `on_task_start` has been called before."""

    @property
    def allows_closure(self) -> bool:
        """Whether the callback works when an optimizer computes its gradients inside the step, by a closure."""
        return True

    @property
    def state_key(self) -> str:
        """Name its state is saved under."""
        return self.key or type(self).__qualname__


class CallbackList:
    """Callbacks in the order they are called."""

    def __init__(self, callbacks: Iterable[Callback]) -> None:
        """Sort by priority.

        Raises:
            DuplicateNameError: Two callbacks have the same key.
        """
        self.items = sorted(callbacks, key=lambda callback: callback.priority)
        self._at_task_end = sorted(self.items, key=lambda callback: type(callback).priority)
        keys = [callback.state_key for callback in self.items]
        repeated = sorted({key for key in keys if keys.count(key) > 1})
        if repeated:
            raise DuplicateNameError(
                f"Expected every callback to have its own key, but {repeated} came more than once. Pass each callback "
                "once, or give a subclass another `key`."
            )

    def call(self, event: str, *args: object) -> None:
        """Call one event of every callback.

        After a step each of them is called, even if an earlier one raises: one restores what finished tasks need.
        """
        if event == "on_after_optimizer_step":
            with ExitStack() as stack:
                for callback in reversed(self.items):
                    stack.callback(getattr(callback, event), *args)
            return
        for callback in self._at_task_end if event == "on_task_end" else self.items:
            getattr(callback, event)(*args)

    def state_dict(self) -> dict[str, dict[str, Any]]:
        """Return the state of every callback that has one, by key."""
        return {c.state_key: state for c in self.items if (state := c.state_dict())}

    def load_state_dict(self, states: Mapping[str, Mapping[str, Any]]) -> None:
        """Restore what `state_dict` returned; a callback without a saved state keeps its own."""
        for callback in self.items:
            if callback.state_key in states:
                callback.load_state_dict(states[callback.state_key])


def optimizer_parameters(optimizer: Optimizer) -> set[int]:
    """Return the ids of the parameters that an optimizer holds."""
    return {id(p) for group in optimizer.param_groups for p in group["params"]}
