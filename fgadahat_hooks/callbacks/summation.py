"""Sums the importances of all tasks into the one that protects (FG-AdaHAT Eq. 4)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from torch import Tensor

from fgadahat_hooks import registry
from fgadahat_hooks.callbacks.base import Callback
from fgadahat_hooks.gates.context import TaskContext
from fgadahat_hooks.gates.task_state import TaskRecord, TaskState
from fgadahat_hooks.spec.attach_spec import PlainSummation, to_summation


class SummationCallback(Callback):
    """Applies a summing strategy at the end of each task that has an importance.

    Args:
        spec: Block `summation` of a spec, or a dict; `add_all` by default.

    Example:
        >>> import fgadahat_hooks as fh
        >>> fh.SummationCallback().strategy
        'add_all'
    """

    key: ClassVar[str] = "summation"
    priority: ClassVar[int] = 20

    def __init__(self, spec: Any = None) -> None:
        """Look up the strategy."""
        self.spec = to_summation(PlainSummation() if spec is None else spec)
        self.strategy: str = self.spec.strategy
        self._sum: Callable[..., Tensor] = registry.strategies.get(self.strategy)
        self._params = self.spec.model_dump(exclude={"strategy"})

    def on_task_end(self, context: TaskContext) -> None:
        """Sum the importances of all finished tasks and this one, layer by layer."""
        if context.record.importance:
            context.summed_importance = self.summed(context.state, context.record)

    def summed(self, state: TaskState, newest: TaskRecord) -> dict[str, Tensor]:
        """Return the sum over the finished tasks and the one that is ending, `(units,)` a layer.

        Args:
            state: What the earlier tasks left; it is not changed.
            newest: The record of the task that is ending; without importance it adds nothing.
        """
        if not newest.importance:
            return dict(state.summed_importance)
        earlier = [record.importance for record in state.records.values() if record.importance]
        return {
            name: self._sum(
                state.summed_importance.get(name), [*(i[name] for i in earlier), importance], **self._params
            )
            for name, importance in newest.importance.items()
        }
