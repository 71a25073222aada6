"""A session's way to the disk."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from fgadahat_hooks.about import about, to_json
from fgadahat_hooks.checkpoint import restore_extra, save_session
from fgadahat_hooks.session_views import SessionViews


class SessionFolder(SessionViews):
    """The part of a session that writes all it remembers into a folder; `fgadahat_hooks.load` makes one of it again."""

    def save(self, path: str | os.PathLike[str], extra: Mapping[str, Any] | None = None) -> None:
        """Save everything into a folder, in the middle of a task too; `fgadahat_hooks.load(model, path)` reads it.

        The save that was there before is valid until the new one is whole, whatever happens meanwhile. Nothing is
        pickled. Ask for it between two optimizer steps.

        Args:
            path: The folder; it is made if there is none.
            extra: What the loop needs beside the session to go on to the same bits, by name: optimizers, schedulers,
                scalers, loaders, whatever has `state_dict` and `load_state_dict`; a `torch.Generator`; plain data.

        Raises:
            NoTaskError: The model has not been traced yet.
            BadCallError: Something cannot be stored, or a finished task is in use. Nothing was written.
            TaskRunningError: A task is running in another thread.
            CheckpointError: The folder cannot be written.
        """
        self._runtime.check_attached()
        save_session(self._runtime, path, extra, lambda: to_json(about(self._runtime)))

    def restore(
        self, path: str | os.PathLike[str], extra: Mapping[str, Any] | None = None, *, random: bool = True
    ) -> dict[str, Any]:
        """Give optimizers and the like the states that `save` stored, and set random numbers to where they stood.

        Args:
            path: The folder that this session was loaded from.
            extra: New objects in place of those that were saved, by the same names.
            random: Whether to set the random numbers of torch, CUDA, Python and numpy.

        Returns:
            What was saved as plain data, by name.

        Raises:
            CheckpointError: The folder cannot be read, or was changed.
            StateMismatchError: It holds another save, or an object does not take its state. Nothing was changed.
        """
        self._runtime.check_attached()
        return restore_extra(self._runtime, path, extra, random)
