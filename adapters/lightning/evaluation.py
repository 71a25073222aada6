"""Use the masks, heads and norms of the right task for each dataloader of an evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack

import fgadahat_hooks as fh
from fgadahat_hooks.errors import BadCallError


class EvaluationTasks:
    """Switches the model to the task of the current dataloader."""

    def __init__(self, session: fh.Session, default: str | int | None, tasks: Sequence[str | int] | None) -> None:
        """Store one task for each dataloader, or a default for all."""
        self._session = session
        self._default = default
        self._tasks = None if tasks is None else list(tasks)
        self._loader_tasks: list[str | int] = []
        self._current_loader: int | None = None
        self._stack = ExitStack()

    def start(self, loaders: int, running: str | int | None) -> None:
        """Begin an evaluation.

        Args:
            loaders: Number of dataloaders.
            running: Id of the running task, which needs no switch.

        Raises:
            BadCallError: There is not one task for each dataloader.
            UnknownTaskError: A task is not finished.
        """
        self.leave()
        if self._tasks is None:
            if self._default is None:
                raise BadCallError(
                    "Expected to know which task to evaluate. Pass TaskCallback(session, task) or eval_tasks=[...]."
                )
            self._loader_tasks = [] if self._default == running else [self._default] * loaders
        else:
            if len(self._tasks) != loaders:
                raise BadCallError(
                    f"Expected one task for each of the {loaders} dataloaders in `eval_tasks`, but got {self._tasks!r}."
                )
            self._loader_tasks = self._tasks
        for task in self._loader_tasks:
            self._session.use(task)  # raises for an unknown task; does not switch yet

    def enter(self, loader: int) -> None:
        """Switch the model to the task of a dataloader."""
        if self._loader_tasks and loader != self._current_loader:
            self._stack.close()
            self._stack.enter_context(self._session.use(self._loader_tasks[loader]))
            self._current_loader = loader

    def leave(self) -> None:
        """Restore the model's state before the evaluation."""
        self._stack.close()
        self._loader_tasks, self._current_loader = [], None
