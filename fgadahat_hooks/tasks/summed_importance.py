"""Sum importances anew, for some of the finished tasks."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from fgadahat_hooks.callbacks.summation import SummationCallback
from fgadahat_hooks.errors import BadCallError
from fgadahat_hooks.gates.task_state import TaskId, TaskRecord, TaskState
from fgadahat_hooks.tasks.sequence import TaskSequence


def summed_importance_of(sequence: TaskSequence, records: Mapping[TaskId, TaskRecord]) -> dict[str, Tensor]:
    """Return the summed importance, by layer, as if these tasks alone had ended, one after another.

    Raises:
        BadCallError: The session has no callback that could sum them.
    """
    if not sequence.state.summed_importance:
        return {}
    summing = [c for c in sequence.callbacks.items if isinstance(c, SummationCallback)]
    if not summing:
        raise BadCallError(
            "Expected a SummationCallback among the session's callbacks, to sum the importances of the remaining tasks "
            "anew, but got none. Attach with the one that the tasks were learnt with."
        )
    state = TaskState()
    for task, record in records.items():
        state.summed_importance = summing[-1].summed(state, record)
        state.records[task] = record
    return state.summed_importance
