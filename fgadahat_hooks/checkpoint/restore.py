"""Restore what a training loop saved beside its session: states of optimizers and the like, and random numbers."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from fgadahat_hooks.checkpoint.extra import load_extra
from fgadahat_hooks.checkpoint.save import SavedExtra, read_extra
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
    """Load the states of optimizers and the like, and the saved states of random numbers.

    Args:
        sequence: The tasks of the session.
        save_id: Id of the save that the session was loaded from, empty if it was not loaded.
        path: The folder.
        extra: New objects in place of those that were saved, by the same names.
        random: Whether to set the random numbers.

    Returns:
        What was saved as plain data, by name.

    Raises:
        CheckpointError: The folder cannot be read; see `read_session`.
        StateMismatchError: It is not the save that the session was loaded from, or something does not take its state.
    """
    saved = read_extra(path)
    _check_same_save(saved.save_id, save_id)
    before = random_state()
    if random:
        _set_random_states(saved, before)
    try:
        plain = load_extra(saved.values, extra)
    except BaseException:
        set_random_state(before)
        raise
    if random:
        sequence.epoch_replay.state = saved.epoch
        _set_or_restore(saved.random, before)  # loading a state may have drawn random numbers
    return plain


def _check_same_save(found: str, loaded_from: str) -> None:
    if found != loaded_from:
        what = "another save was made there since" if loaded_from else "it was not loaded from one"
        raise StateMismatchError(
            f"Expected the folder that this session was loaded from, but {what}: session and optimizer would not fit. "
            "Nothing was changed. Load the session by `fgadahat_hooks.load(model, path)`, then restore from that path."
        )


def _set_random_states(saved: SavedExtra, before: dict[str, Any]) -> None:
    """Set random numbers to where they were saved; those of the epoch's start are only tried out."""
    _set_or_restore(saved.random, before)
    if saved.epoch is not None:
        _set_or_restore(saved.epoch, before)
        _set_or_restore(saved.random, before)


def _set_or_restore(state: Any, before: dict[str, Any]) -> None:
    """Set random numbers to a saved state, or back to `before` if it is not a state.

    Raises:
        DamagedCheckpointError: It is not.
    """
    try:
        set_random_state(state)
    except Exception as error:
        set_random_state(before)
        raise DamagedCheckpointError(
            f"Expected states of random numbers, but they are none ({error!r:.200}). Nothing was changed. Take another "
            "copy of the folder, or leave random numbers alone by `random=False`."
        ) from error
