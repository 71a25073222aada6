"""What most figures need: a run in which a task has ended."""

from __future__ import annotations

from fgadahat_hooks.errors import BadCallError
from fgadahat_hooks.summary.source import Source, as_summary
from fgadahat_hooks.summary.summary import RunSummary


def has_tasks(source: Source, least: int = 1) -> RunSummary:
    """Return a run's summary.

    Args:
        source: A session, a summary, or the folder of a saved run.
        least: Number of finished tasks that it must have.

    Raises:
        BadCallError: It has fewer.
    """
    run = as_summary(source)
    if len(run.tasks) < least or not run.layers:
        got = len(run.tasks) if run.layers else "no gated layer"
        raise BadCallError(
            f"Expected a run with finished tasks, {least} at least, but got {got}. Learn one with session.task(...)."
        )
    return run
