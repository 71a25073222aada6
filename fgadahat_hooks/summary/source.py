"""What report, figures and command line accept as a run: a session, its summary, or a folder."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Any

from fgadahat_hooks.errors import BadCallError
from fgadahat_hooks.session.session import Session
from fgadahat_hooks.summary.accuracy_input import accuracy_matrix
from fgadahat_hooks.summary.summary import RunSummary, read_summary, summarize

Source = Session | RunSummary | str | os.PathLike[str]
"""A live session, a summary, or a folder that `session.save` wrote."""


def as_summary(source: Source, accuracy: Any = None) -> RunSummary:
    """Return the summary of a run, from whatever it is given as.

    Args:
        source: A session, a summary or a folder.
        accuracy: The accuracy matrix, as for `summarize`; that of the source when left out.

    Raises:
        BadCallError: It is none of these, or the accuracies are no matrix of its tasks.
        CheckpointError: The folder cannot be read; see `read_summary`.
        NoTaskError: The model of the session has not been traced yet.
    """
    if isinstance(source, RunSummary):
        return source if accuracy is None else replace(source, accuracy=accuracy_matrix(accuracy, len(source.tasks)))
    if isinstance(source, Session):
        return summarize(source, accuracy)
    if isinstance(source, str | os.PathLike):
        return read_summary(source, accuracy)
    raise BadCallError(
        f"Expected a session, a RunSummary or the folder of a saved run, but got {type(source).__name__}. Pass what "
        "fgadahat_hooks.attach returned, or the path given to session.save."
    )
