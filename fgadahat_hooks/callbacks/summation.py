"""Sums the importances of all tasks into the one that protects (FG-AdaHAT Eq. 4)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from torch import Tensor

from fgadahat_hooks import registry
from fgadahat_hooks.callbacks.base import Callback, TaskContext
from fgadahat_hooks.spec import PlainSummation, to_summation


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
        """Look the strategy up."""
        self.spec = to_summation(PlainSummation() if spec is None else spec)
        self.strategy: str = self.spec.strategy
        self._sum: Callable[..., Tensor] = registry.strategies.get(self.strategy)
        self._params = self.spec.model_dump(exclude={"strategy"})

    def on_task_end(self, context: TaskContext) -> None:
        """Sum the importances of all finished tasks and this one, layer by layer."""
        if not context.record.importance:
            return
        earlier = [record.importance for record in context.state.records.values() if record.importance]
        summed = context.state.summed_importance
        context.summed_importance = {
            name: self._sum(summed.get(name), [*(i[name] for i in earlier), newest], **self._params)
            for name, newest in context.record.importance.items()
        }
