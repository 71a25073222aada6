"""The base of the Lightning callbacks for importance, summation and adjustment."""

from __future__ import annotations

from lightning.pytorch import Callback, LightningModule, Trainer

import fgadahat_hooks as fh
from fgadahat_hooks.adapters.lightning.checks import check_session
from fgadahat_hooks.errors import BadCallError


class CallbackAdapter(Callback):
    """Adds a callback of the library to the session for fits of Trainers that have this callback in their list.

    Attributes:
        session: The session.
        core: The library's callback, which handles the events of the task.
        runs_tasks: Whether the callback begins and ends tasks.
    """

    runs_tasks = False

    def __init__(self, session: fh.Session, core: fh.Callback) -> None:
        """Store both; the Trainer's `TaskCallback` adds `core` to the session."""
        check_session(session)
        self.session = session
        self.core = core

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Check that a `TaskCallback` runs the task.

        Raises:
            BadCallError: No `TaskCallback` over the same session is in the Trainer's list.
        """
        others = [c for c in trainer.callbacks if getattr(c, "runs_tasks", False)]  # type: ignore[attr-defined]
        if stage == "fit" and not any(getattr(c, "session", None) is self.session for c in others):
            raise BadCallError(
                f"Expected a TaskCallback over the same session beside {type(self).__name__}, but the Trainer has "
                'none. Add TaskCallback(session, task="...") to its callbacks.'
            )
