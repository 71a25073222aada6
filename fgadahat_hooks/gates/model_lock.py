"""One thread at a time runs a model as a task it has chosen: a task's masks and tensors are in the model itself."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from fgadahat_hooks.errors import TaskRunningError


class _Mine(threading.local):
    """What each thread sees for itself."""

    held = False
    depth = 0


class ModelLock:
    """The exclusive use of a model: a lock that a thread may take again while it holds it.

    A copy of it, and one read from a pickle, is new: the lock belongs to one model.
    """

    def __init__(self) -> None:
        """Start with nobody holding it."""
        self._lock = threading.RLock()
        self._used = False
        self._mine = _Mine()
        self._coroutines: list[object] = []

    @contextmanager
    def hold(self) -> Iterator[None]:
        """Wait until no other thread is in such a block, then run this one.

        Raises:
            TaskRunningError: Another coroutine of this thread is in such a block: to wait for it would take forever.
        """
        if in_autograd_thread():  # the thread that holds the lock waits for this one
            yield
            return
        with self._lock:
            coroutine = _coroutine()
            if self._coroutines and self._coroutines[-1] not in (None, coroutine):
                raise TaskRunningError(
                    "Another coroutine of this thread is inside a `session.use` block, and the model can be one task "
                    "at a time. Do not await inside the block, or run the model in threads (`asyncio.to_thread`)."
                )
            self._coroutines.append(coroutine)
            self._mine.depth += 1
            self._mine.held = self._used = True
            try:
                yield
            finally:
                self._mine.depth -= 1
                self._mine.held = self._mine.depth > 0
                self._coroutines.pop()

    def is_mine(self) -> bool:
        """Return whether this thread is in such a block, or nobody ever was: a copy made in a block stays as it is.

        Autograd's own threads count as the one that waits for them: gradient checkpointing runs the forward there.
        The compiler guards on what is read here, thread by thread.
        """
        return not self._used or self._mine.held or in_autograd_thread()

    def __deepcopy__(self, memo: Any) -> ModelLock:
        """Return a new one."""
        return ModelLock()

    def __reduce__(self) -> tuple[type[ModelLock], tuple[()]]:
        """Pickle nothing."""
        return ModelLock, ()


def _coroutine() -> object:
    """Return the coroutine that runs now, None outside of any."""
    try:
        return asyncio.current_task()
    except RuntimeError:
        return None


def in_autograd_thread() -> bool:
    """Return whether this is a thread that autograd started, in the middle of a backward.

    A thread that was not started from Python is a dummy to `threading`; torch tells in it which backward it works for.
    """
    return torch._C._current_graph_task_id() != -1 and isinstance(threading.current_thread(), threading._DummyThread)
