"""Give a loop back what was saved beside its session."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from fgadahat_hooks.checkpoint.extra import load_extra
from fgadahat_hooks.checkpoint.save import read_extra
from fgadahat_hooks.errors import DamagedCheckpointError, StateMismatchError
from fgadahat_hooks.tasks.random_states import random_state, set_random_state
from fgadahat_hooks.tasks.sequence import TaskSequence


def restore_extra(
    sequence: TaskSequence,
    save_id: str,
    path: str | os.PathLike[str],
    extra: Mapping[str, Any] | None,
    random: bool,
) -> dict[str, Any]:
    """Load the states of optimizers and the like, and set random numbers to where they stood.

    Args:
        sequence: The tasks of the session.
        save_id: Which save the session was loaded from, empty if from none.
        path: The folder.
        extra: New objects in place of those that were saved, by the same names.
        random: Whether to set the random numbers.

    Raises:
        CheckpointError: The folder cannot be read; see `read_session`.
        StateMismatchError: It is not the save that the session was loaded from, or something does not take its state.
    """
    save, values, now, epoch = read_extra(path)
    if save != save_id:
        what = "another save was made there since" if save_id else "it was not loaded from one"
        raise StateMismatchError(
            f"Expected the folder that this session was loaded from, but {what}: session and optimizer would not fit. "
            "Nothing was changed. Load the session by `fgadahat_hooks.load(model, path)`, then restore from that path."
        )
    before = random_state()
    if random:
        _set(now, before)
        if epoch is not None:
            _set(epoch, before)
            _set(now, before)
    try:
        plain = load_extra(values, extra)
    except BaseException:
        set_random_state(before)
        raise
    if random:
        sequence.draws.state = epoch
        _set(now, before)  # a state that was loaded may have drawn
    return plain


def _set(state: Any, before: dict[str, Any]) -> None:
    try:
        set_random_state(state)
    except Exception as error:
        set_random_state(before)
        raise DamagedCheckpointError(
            f"Expected states of random numbers, but they are none ({error!r:.200}). Nothing was changed. Take another "
            "copy of the folder, or leave random numbers alone by `random=False`."
        ) from error
