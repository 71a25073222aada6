"""The model lock: a task's masks and tensors are set in the model itself, so one thread at a time may use it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from fgadahat_hooks.errors import TaskRunningError


class _ThreadState(threading.local):
    """How deep the current thread is in `hold` blocks."""

    held = False
    depth = 0


class ModelLock:
    """Exclusive use of a model: a reentrant lock.

    Since a lock belongs to one model, copying or unpickling gives a new one.
    """

    def __init__(self) -> None:
        """Start unlocked."""
        self._lock = threading.RLock()
        self._ever_held = False
        self._thread = _ThreadState()
        self._coroutines: list[object] = []

    @contextmanager
    def hold(self) -> Iterator[None]:
        """Wait until no other thread is in a `hold` block, then run the block.

        Raises:
            TaskRunningError: Another coroutine of this thread is in a `hold` block; waiting for it would deadlock.
        """
        if in_autograd_thread():  # the thread that called backward holds the lock and waits for this one
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
            self._thread.depth += 1
            self._thread.held = self._ever_held = True
            try:
                yield
            finally:
                self._thread.depth -= 1
                self._thread.held = self._thread.depth > 0
                self._coroutines.pop()

    def is_mine(self) -> bool:
        """Return whether this thread is in a `hold` block, or no thread ever was.

        The latter is so for a copy of a model made inside a block, which keeps the task of that block. Autograd's own
        threads count as the thread that called backward: gradient checkpointing runs the forward in them.
        torch.compile guards on the attributes read here, in each thread separately.
        """
        return not self._ever_held or self._thread.held or in_autograd_thread()

    def __deepcopy__(self, memo: Any) -> ModelLock:
        """Return a new lock."""
        return ModelLock()

    def __reduce__(self) -> tuple[type[ModelLock], tuple[()]]:
        """Pickle no state."""
        return ModelLock, ()


def _coroutine() -> object:
    """Return the running asyncio task, None outside of any."""
    try:
        return asyncio.current_task()
    except RuntimeError:
        return None


def in_autograd_thread() -> bool:
    """Return whether this thread was started by autograd and is running a backward.

    `threading` represents a thread not started from Python by a dummy; in a backward, torch's graph task id is not -1.
    """
    return torch._C._current_graph_task_id() != -1 and isinstance(threading.current_thread(), threading._DummyThread)
