"""A session's way to the disk."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from fgadahat_hooks.callbacks import Callback
from fgadahat_hooks.callbacks.gradient_adjust import GradientAdjustCallback
from fgadahat_hooks.checkpoint import restore_extra, save_session
from fgadahat_hooks.checkpoint.run_metadata import RunMetadata, to_json
from fgadahat_hooks.protection.plan import Plan, make_plan
from fgadahat_hooks.session.views import SessionViews
from fgadahat_hooks.tasks.history import History
from fgadahat_hooks.tasks.sequence import TaskSequence
from fgadahat_hooks.verify import VerifyReport


class SessionFolder(SessionViews):
    """The part of a session that writes all it remembers into a folder; `fgadahat_hooks.load` makes one of it again."""

    def __init__(self, sequence: TaskSequence) -> None:
        """Take over an attached model and its tasks; its callbacks are those given to `attach`."""
        super().__init__(sequence)
        self._own_callbacks: tuple[Callback, ...] = tuple(sequence.callbacks.items)
        self._history = History()
        self._verified: VerifyReport | None = None  # what the last proof found
        self._save_id = ""  # which save the session was loaded from, empty if from none

    @property
    def plan(self) -> Plan:
        """What is gated where, and how every parameter and buffer is protected."""
        graph = self.graph
        adjusting = [c.spec for c in self._sequence.callbacks.items if isinstance(c, GradientAdjustCallback)]
        return make_plan(self._attached.model, graph, self._attached.policies, adjusting[0] if adjusting else None)

    def _metadata(self) -> RunMetadata:
        """Return what people look at when they look at the run."""
        return RunMetadata(self.plan, tuple(self._history.after_each(self._sequence).values()), self._verified)

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
        self._attached.check_attached()
        keys = [callback.state_key for callback in self._own_callbacks]
        save_session(self._sequence, path, extra, keys, lambda: to_json(self._metadata()))

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
        self._attached.check_attached()
        return restore_extra(self._sequence, self._save_id, path, extra, random)
