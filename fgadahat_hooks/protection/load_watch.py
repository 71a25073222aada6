"""Note that a state dict was loaded into the model: weights that differ then are not put back without a question."""

from __future__ import annotations

import weakref
from typing import Any

from fgadahat_hooks.protection.guard import GuardedTasks


def watch_loading(tasks: GuardedTasks) -> None:
    """Note loads into the model, or into a part of it, until the model's hooks are closed."""
    for module in tasks.attached.model.modules():
        tasks.attached.hooks.load_pre(module, _NoteLoad(tasks))


class _NoteLoad:
    """Runs before a state dict is loaded into a module; in a copy of the model it does nothing."""

    def __init__(self, tasks: GuardedTasks) -> None:
        self._tasks = weakref.ref(tasks)

    def __call__(self, *_: Any) -> None:
        tasks = self._tasks()
        if tasks is not None and tasks.state.kept is not None:
            tasks.state.kept.loaded = True

    def __deepcopy__(self, memo: Any) -> Any:
        return _ignore

    def __reduce__(self) -> Any:
        return (_unpickled, ())


def _unpickled() -> Any:
    return _ignore


def _ignore(*_: Any) -> None:
    return None
