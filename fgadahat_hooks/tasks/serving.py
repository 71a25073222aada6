"""A finished task in use: what it reads is compared before anything is computed, and again at the end."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

from torch import Tensor, nn

from fgadahat_hooks.errors import WeightsChangedError
from fgadahat_hooks.gates.task_state import TaskId
from fgadahat_hooks.tasks.sequence import TaskSequence


@contextmanager
def serving(sequence: TaskSequence, task: TaskId | list[TaskId], using: AbstractContextManager[None]) -> Iterator[None]:
    """Run the block in `using`, with the weights that finished tasks were learnt with.

    Args:
        sequence: The tasks.
        task: The task in use, for the messages.
        using: Sets the model to that task.

    Raises:
        WeightsChangedError: What finished tasks read had been changed and cannot be put back; or the block itself has
            changed it, so that what it computed may be wrong. Then it was put back.
    """
    with sequence.exclusive():
        sequence.check_kept(f"when task {task!r} was used")
        with using:
            own = _own_parameters(sequence)
            yield
            _refuse_written(task, own)
        changed = sequence.put_back_written()
        if changed:
            raise WeightsChangedError(
                f"{sum(changed.values()):,} entries of {len(changed)} tensor(s) that finished tasks read, first "
                f"'{next(iter(changed))}', were changed while task {task!r} was in use: what it computed since may be "
                "wrong. They were put back. Change weights outside of `session.use(...)`."
            )


def _own_parameters(sequence: TaskSequence) -> dict[str, tuple[Tensor, int]]:
    """Return the parameters that a task has for itself, as they are in the model now, with their versions."""
    tensors = sequence.attached.tensors
    found = {name: tensors.tensor(name) for name in tensors.names}
    return {name: (t, t._version) for name, t in found.items() if isinstance(t, nn.Parameter) and not t.is_inference()}


def _refuse_written(task: TaskId | list[TaskId], own: dict[str, tuple[Tensor, int]]) -> None:
    written = [name for name, (tensor, version) in own.items() if tensor._version != version]
    if written:
        raise WeightsChangedError(
            f"{len(written)} tensor(s) of task {task!r} itself, first '{written[0]}', were written into while it was "
            "in use. No other copy of them is kept, so the task is no longer what it was. Load the session from its "
            "last save, and change weights outside of `session.use(...)`."
        )
