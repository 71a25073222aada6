"""What is looked at between the steps of a task: foreign writes, NaN, frozen gates, averages that optimizers keep."""

from __future__ import annotations

import weakref

from torch.optim import Optimizer

from fgadahat_hooks.callbacks import CallbackList
from fgadahat_hooks.gates.attached_model import AttachedModel
from fgadahat_hooks.gates.task_state import TaskState
from fgadahat_hooks.protection.averages import set_averages
from fgadahat_hooks.protection.doors import check_kept
from fgadahat_hooks.protection.finite_check import FiniteCheck
from fgadahat_hooks.protection.frozen_gates import let_gates_learn


class BetweenSteps:
    """Looks after a model between the steps of one task.

    Attributes:
        in_step: Whether a step has begun and not ended; between steps, whether one raised.
    """

    def __init__(self, attached: AttachedModel, state: TaskState, callbacks: CallbackList) -> None:
        """Look at nothing yet.

        Args:
            attached: The model.
            state: Finished tasks.
            callbacks: They determine how strictly finished tasks are protected.
        """
        self._attached, self._state, self._callbacks = attached, state, callbacks
        self._finite = FiniteCheck()
        self._optimizers: weakref.WeakSet[Optimizer] = weakref.WeakSet()
        self.in_step = False

    def add(self, optimizer: Optimizer) -> None:
        """Look after the averages of an optimizer too."""
        self._optimizers.add(optimizer)
        set_averages(optimizer, self._state.kept)

    def check(self, when: str) -> None:
        """Put back what something wrote into what finished tasks read since the last step; let frozen gates learn.

        Args:
            when: What is about to happen, for the message: "before a step".

        Raises:
            NonFiniteError: A step has made parameters NaN or infinite.
            WeightsChangedError: Putting back cannot be right.
        """
        self._finite.raise_if_found(self._attached.model)
        let_gates_learn(self._attached)
        if self.in_step:
            self._undo_step()
        check_kept(self._attached, self._state, self._callbacks, when, running=True, by_value=False)

    def _undo_step(self) -> None:
        """Put back without a word what a step wrote that raised: who called it knows."""
        self.in_step = False
        kept = self._state.kept
        if kept is not None and self._state.watched:
            kept.put_back(kept.entries(running=True))
            kept.see()

    def step_ended(self, optimizer: Optimizer, count: int) -> None:
        """Take the values after a step as known.

        Args:
            optimizer: The optimizer that stepped.
            count: Number of steps made in the task.
        """
        self.in_step = False
        set_averages(optimizer, self._state.kept)
        self._finite.look(count, [p for group in optimizer.param_groups for p in group["params"]])
        if self._state.kept is not None:
            self._state.kept.see()

    def task_ended(self) -> None:
        """Set the optimizers' averages of what finished tasks read, which has grown by what this task reads."""
        for optimizer in self._optimizers:
            set_averages(optimizer, self._state.kept)
