"""Checks of what a figure needs."""

from __future__ import annotations

from fgadahat_hooks.errors import BadCallError
from fgadahat_hooks.summary.source import Source, as_summary
from fgadahat_hooks.summary.summary import RunSummary


def summary_with_tasks(source: Source, minimum: int = 1) -> RunSummary:
    """Return the summary of a run with enough finished tasks.

    Args:
        source: A session, a summary, or the folder of a saved run.
        minimum: Number of finished tasks that the run must have.

    Raises:
        BadCallError: The run has fewer, or no gated layer.
    """
    run = as_summary(source)
    if len(run.tasks) < minimum or not run.layers:
        got = len(run.tasks) if run.layers else "no gated layer"
        raise BadCallError(
            f"Expected a run with finished tasks, {minimum} at least, but got {got}. Learn one with session.task(...)."
        )
    return run
