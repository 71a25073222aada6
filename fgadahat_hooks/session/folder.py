"""What a session saves into a folder, and restores from it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from fgadahat_hooks.checkpoint import restore_extra, save_session
from fgadahat_hooks.checkpoint.run_metadata import RunMetadata, to_json
from fgadahat_hooks.session.views import SessionViews
from fgadahat_hooks.tasks.history import History
from fgadahat_hooks.tasks.sequence import TaskSequence
from fgadahat_hooks.verify import VerifyReport


class SessionFolder(SessionViews):
    """The part of a session that saves everything into a folder, which `fgadahat_hooks.load` reads."""

    def __init__(self, sequence: TaskSequence) -> None:
        """Wrap an attached model and its tasks; nothing is proved, and nothing was loaded yet."""
        super().__init__(sequence)
        self._history = History()
        self._verified: VerifyReport | None = None  # what the last proof found
        self._save_id = ""  # id of the save that the session was loaded from, empty if it was not loaded

    def run_metadata(self) -> RunMetadata:
        """Return the plan, capacity and rates after each finished task, and what the last `verify` found."""
        return RunMetadata(self.plan, tuple(self._history.after_each(self._sequence).values()), self._verified)

    def _mark_loaded(self, save_id: str, metadata: RunMetadata) -> None:
        """Note which save the session was loaded from, and the proof that was saved in it."""
        self._save_id, self._verified = save_id, metadata.verified

    def save(self, path: str | os.PathLike[str], extra: Mapping[str, Any] | None = None) -> None:
        """Save everything into a folder, also in the middle of a task; `fgadahat_hooks.load(model, path)` reads it.

        The previous save in the folder stays valid until the new one is complete, whatever happens meanwhile. Nothing
        is pickled. Call it between two optimizer steps.

        Args:
            path: The folder; it is created if it does not exist.
            extra: What the loop needs beside the session to resume with the same bits, by name: optimizers, schedulers,
                scalers, loaders, whatever has `state_dict` and `load_state_dict`; a `torch.Generator`; plain data.

        Raises:
            NoTaskError: The model has not been traced yet.
            BadCallError: Something cannot be stored, or a finished task is in use. Nothing was written.
            TaskRunningError: A task is running in another thread.
            CheckpointError: The folder cannot be written.
            WeightsChangedError: What finished tasks read was changed, and cannot be put back.
        """
        self._attached.check_attached()
        self._sequence.check_kept("when the session was saved")
        keys = [callback.state_key for callback in self._own_callbacks]
        save_session(self._sequence, path, extra, keys, lambda: to_json(self.run_metadata()))

    def restore(
        self, path: str | os.PathLike[str], extra: Mapping[str, Any] | None = None, *, random: bool = True
    ) -> dict[str, Any]:
        """Load the states of optimizers and the like that `save` stored, and the states of random numbers.

        Args:
            path: The folder that this session was loaded from.
            extra: New objects in place of those that were saved, by the same names.
            random: Whether to set the random states of torch, CUDA, Python and numpy.

        Returns:
            What was saved as plain data, by name.

        Raises:
            CheckpointError: The folder cannot be read, or was changed.
            StateMismatchError: It holds another save, or an object does not take its state. Nothing was changed.
        """
        self._attached.check_attached()
        return restore_extra(self._sequence, self._save_id, path, extra, random)
