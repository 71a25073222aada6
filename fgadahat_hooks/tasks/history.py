"""How much of the network could still move when each task had ended, worked out from what the tasks left."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from torch import Tensor

from fgadahat_hooks.callbacks.summation import SummationCallback
from fgadahat_hooks.errors import BadCallError
from fgadahat_hooks.gates.task_state import TaskId, TaskRecord, TaskState
from fgadahat_hooks.tasks.capacity import adjustment_rates, mean_rates, network_capacity
from fgadahat_hooks.tasks.random_states import random_state, set_random_state
from fgadahat_hooks.tasks.sequence import TaskSequence


class AfterTask(NamedTuple):
    """What was left when a task had ended.

    Attributes:
        capacity: Network capacity; None if it cannot be told any more.
        rates: Mean adjustment rate of each gated weight and bias, by parameter name.
    """

    capacity: float | None
    rates: dict[str, float]


class History:
    """What was left after each finished task; each task is looked at once, whoever asks and however often."""

    def __init__(self) -> None:
        """Know nothing yet."""
        self._known: list[tuple[TaskRecord, AfterTask]] = []

    def after_each(self, sequence: TaskSequence) -> dict[TaskId, AfterTask]:
        """Return what was left after each finished task, as if those learnt since had never come."""
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
        summed = summed_anew(sequence, records)
    except BadCallError:  # nothing is there to sum by, and only the last sum was kept
        return AfterTask(None, {})
    return AfterTask(*capacity_and_rates(sequence, TaskState(records, summed)))


def capacity_and_rates(sequence: TaskSequence, state: TaskState) -> tuple[float, dict[str, float]]:
    """Return capacity and mean rates as if these tasks were finished and none were running.

    Random numbers stay where they are: a random rate draws some.
    """
    sequence.attached.check_attached()
    before = random_state()
    try:
        _ = sequence.graph  # raises if there is none yet
        rates = adjustment_rates(sequence.attached, sequence.callbacks, state, running=False)
        return network_capacity(rates), mean_rates(sequence.attached, rates)
    finally:
        set_random_state(before)


def summed_anew(sequence: TaskSequence, records: Mapping[TaskId, TaskRecord]) -> dict[str, Tensor]:
    """Return the summed importance of a session in which these tasks alone had ended, one after another.

    Raises:
        BadCallError: Nothing is there that could sum them.
    """
    if not sequence.state.summed_importance:
        return {}
    summing = [c for c in sequence.callbacks.items if isinstance(c, SummationCallback)]
    if not summing:
        raise BadCallError(
            "Expected a SummationCallback among the session's callbacks, to sum the importances of the remaining tasks "
            "anew, but got none. Attach with the one that the tasks were learnt with."
        )
    grown = TaskState()
    for task, record in records.items():
        grown.summed_importance = summing[-1].summed(grown, record)
        grown.records[task] = record
    return grown.summed_importance
