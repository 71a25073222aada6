"""The network capacity after each finished task, computed from what the tasks left."""

from __future__ import annotations

from typing import NamedTuple

from fgadahat_hooks.errors import BadCallError
from fgadahat_hooks.gates.task_state import TaskId, TaskRecord, TaskState
from fgadahat_hooks.tasks.capacity import capacity_and_rates
from fgadahat_hooks.tasks.sequence import TaskSequence
from fgadahat_hooks.tasks.summed_importance import summed_importance_of


class AfterTask(NamedTuple):
    """The capacity that was left when a task had ended.

    Attributes:
        capacity: Network capacity; None if it cannot be computed any more.
        rates: Mean adjustment rate of each gated weight and bias, by parameter name.
    """

    capacity: float | None
    rates: dict[str, float]


class History:
    """The capacity left after each finished task; computed once for each task, however often it is read."""

    def __init__(self) -> None:
        """Know nothing yet."""
        self._known: list[tuple[TaskRecord, AfterTask]] = []

    def after_each(self, sequence: TaskSequence) -> dict[TaskId, AfterTask]:
        """Return what was left after each finished task, as if no later task had been learnt."""
        records, known = sequence.state.records, self._known
        for place, record in enumerate(records.values()):
            if place >= len(known) or known[place][0] is not record:
                del known[place:]
                found = _after(sequence, dict(list(records.items())[: place + 1]))
                known.append((record, found))
        del known[len(records) :]
        return {task: after for task, (_, after) in zip(records, known, strict=True)}


def _after(sequence: TaskSequence, records: dict[TaskId, TaskRecord]) -> AfterTask:
    if len(records) == sequence.state.finished:
        return AfterTask(*capacity_and_rates(sequence, sequence.state))
    try:
        summed = summed_importance_of(sequence, records)
    except BadCallError:  # no callback sums importances, and only the newest sum is stored
        return AfterTask(None, {})
    return AfterTask(*capacity_and_rates(sequence, TaskState(records, summed)))
