"""The batches of an epoch, which drive a task's batch events."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sized
from typing import Any, Protocol, TypeVar

from fgadahat_hooks.errors import BadCallError
from fgadahat_hooks.gates.task_state import TaskId
from fgadahat_hooks.progress import require, track

T = TypeVar("T")


class BatchEvents(Protocol):
    """What is called for each batch; a running `Task` is one."""

    @property
    def id(self) -> TaskId:
        """The task's id."""
        ...

    def begin_batch(self, batch: int, num_batches: int, data: Any = None) -> None:
        """Anneal, and call `on_train_batch_start`."""
        ...

    def end_batch(self) -> None:
        """Call `on_train_batch_end`."""
        ...


def batches(
    task: BatchEvents, loader: Iterable[T], *, num_batches: int | None = None, start: int = 0, progress: bool = False
) -> Iterator[T]:
    """Iterate over one epoch of a loader and drive the task's batch events; `task.batches` is the same.

    Args:
        task: The running task.
        loader: A `DataLoader` or any iterable of batches.
        num_batches: Number of batches; needed if the loader has no length.
        start: How many batches of this epoch were trained on before an interruption: they are drawn and skipped.
        progress: Show a progress bar (needs `rich`; silent when not on a terminal).

    Raises:
        BadCallError: The number of batches is not known, or the loader gives more than that.
        MissingDependencyError: `progress` is asked for and `rich` is not installed.
    """
    total = _length(loader, num_batches)
    if not isinstance(start, int) or isinstance(start, bool) or not 0 <= start <= total:
        raise BadCallError(f"Expected `start` to be a whole number from 0 to {total}, but got {start!r}.")
    if progress:
        require("progress=True")
        loader = track(loader, f"task {task.id}", total)
    return _drive(task, loader, total, start)


def _drive(task: BatchEvents, loader: Iterable[T], total: int, start: int) -> Iterator[T]:
    for number, batch in enumerate(loader, start=1):
        if number <= start:
            continue
        if number > total:
            raise BadCallError(
                f"Expected at most {total} batches, but the loader gave another one. Pass the true num_batches: the "
                "gates reach their largest scale on the last batch."
            )
        task.begin_batch(number, total, batch)
        yield batch
        task.end_batch()


def _length(loader: Iterable[Any], num_batches: int | None) -> int:
    if num_batches is not None:
        if not isinstance(num_batches, int) or isinstance(num_batches, bool) or num_batches < 1:
            raise BadCallError(f"Expected `num_batches` to be a whole number of at least 1, but got {num_batches!r}.")
        return num_batches
    try:
        if isinstance(loader, Sized):
            return len(loader)
    except TypeError:  # a DataLoader over an IterableDataset has __len__ and refuses it
        pass
    raise BadCallError(
        f"Expected `num_batches` for a loader without a length ({type(loader).__name__}): the gates are annealed over "
        "the batches of an epoch. Pass task.batches(loader, num_batches=...)."
    )
