"""The right task's masks, heads and norms for each dataloader of an evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack

import fgadahat_hooks as fh
from fgadahat_hooks.errors import BadCallError


class EvaluationTasks:
    """Which task the model is, while the batches of a dataloader pass."""

    def __init__(self, session: fh.Session, default: str | int | None, tasks: Sequence[str | int] | None) -> None:
        """Take one task for each dataloader, or one for all."""
        self._session = session
        self._default = default
        self._tasks = None if tasks is None else list(tasks)
        self._now: list[str | int] = []
        self._loader: int | None = None
        self._stack = ExitStack()

    def start(self, loaders: int, running: str | int | None) -> None:
        """Begin an evaluation.

        Args:
            loaders: Number of dataloaders.
            running: The running task, which the model is by itself.

        Raises:
            BadCallError: There is not one task for each dataloader.
            UnknownTaskError: One of them is not finished.
        """
        self.leave()
        if self._tasks is None:
            if self._default is None:
                raise BadCallError(
                    "Expected to know which task to evaluate. Pass TaskCallback(session, task) or eval_tasks=[...]."
                )
            self._now = [] if self._default == running else [self._default] * loaders
        else:
            if len(self._tasks) != loaders:
                raise BadCallError(
                    f"Expected one task for each of the {loaders} dataloaders in `eval_tasks`, but got {self._tasks!r}."
                )
            self._now = self._tasks
        for task in self._now:
            self._session.use(task)  # raises for a task that is not known; nothing is entered yet

    def enter(self, loader: int) -> None:
        """Be the task of a dataloader from now on."""
        if self._now and loader != self._loader:
            self._stack.close()
            self._stack.enter_context(self._session.use(self._now[loader]))
            self._loader = loader

    def leave(self) -> None:
        """Be what the model was before."""
        self._stack.close()
        self._now, self._loader = [], None
