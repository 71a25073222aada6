"""How much of the network could still move when each task had ended, worked out from what the tasks left."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import NamedTuple

from torch import Tensor

from fgadahat_hooks.callbacks.summation import SummationCallback
from fgadahat_hooks.errors import BadCallError
from fgadahat_hooks.random_states import random_state, set_random_state
from fgadahat_hooks.runtime import Runtime
from fgadahat_hooks.session_views import SessionViews
from fgadahat_hooks.state import TaskId, TaskRecord, TaskState


class AfterTask(NamedTuple):
    """What was left when a task had ended.

    Attributes:
        capacity: Network capacity; None if it cannot be told any more.
        rates: Mean adjustment rate of each gated weight and bias, by parameter name.
    """

    capacity: float | None
    rates: dict[str, float]


def history(runtime: Runtime) -> dict[TaskId, AfterTask]:
    """Return what was left after each finished task, as if those learnt since had never come.

    A task is looked at once; whoever saves after every step pays for it after the first one only.
    """
    records = runtime.state.records
    known = runtime.history
    for place, record in enumerate(records.values()):
        if place >= len(known) or known[place][0] is not record:
            del known[place:]
            found = _after(runtime, dict(list(records.items())[: place + 1]))
            known.append((record, found))
    del known[len(records) :]
    return {task: after for task, (_, after) in zip(records, known, strict=True)}


def _after(runtime: Runtime, records: dict[TaskId, TaskRecord]) -> AfterTask:
    if len(records) == runtime.state.finished:
        return AfterTask(*capacity_and_rates(runtime, runtime.state))
    try:
        summed = summed_anew(runtime, records)
    except BadCallError:  # nothing is there to sum by, and only the last sum was kept
        return AfterTask(None, {})
    return AfterTask(*capacity_and_rates(runtime, TaskState(records, summed)))


def capacity_and_rates(runtime: Runtime, state: TaskState) -> tuple[float, dict[str, float]]:
    """Return capacity and mean rates of a session whose finished tasks are these, and in which none is running.

    Random numbers stay where they are: a random rate draws some.
    """
    looking = copy.copy(runtime)
    looking.state, looking.task = state, None
    before = random_state()
    try:
        views = SessionViews(looking)
        return views.capacity(), views.mean_rates()
    finally:
        set_random_state(before)


def summed_anew(runtime: Runtime, records: Mapping[TaskId, TaskRecord]) -> dict[str, Tensor]:
    """Return the summed importance of a session in which these tasks alone had ended, one after another.

    Raises:
        BadCallError: Nothing is there that could sum them.
    """
    if not runtime.state.summed_importance:
        return {}
    summing = [c for c in runtime.callbacks.items if isinstance(c, SummationCallback)]
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
