"""Write the report of a run to a file."""

from __future__ import annotations

import os
import secrets
from contextlib import suppress
from pathlib import Path
from typing import Any

from fgadahat_hooks.errors import BadCallError
from fgadahat_hooks.report.page import page
from fgadahat_hooks.summary.source import Source, as_summary


def report(source: Source, path: str | os.PathLike[str] = "report.html", *, accuracy: Any = None) -> Path:
    """Write the report of a run: one HTML file that any browser opens, without a network and without scripts.

    The file is written atomically: an earlier report stays until the new one is complete.

    Args:
        source: A session; what `summarize` or `read_summary` returned; or a folder that `session.save` wrote, whose
            model is not needed.
        path: The file to write; missing folders are created.
        accuracy: Accuracy on task j after learning task i, `(tasks, tasks)`, 0 to 1: nested lists with None where
            nothing was measured, a tensor, an array, or a `metrics.AccuracyMatrix`. When left out, what a folder holds
            from `session.save(folder, extra={"accuracy": rows})`.

    Returns:
        The path of the file.

    Raises:
        BadCallError: The source is none of these, the accuracies are not a matrix over its tasks, or `path` cannot
            be written.
        CheckpointError: The folder cannot be read.
        NoTaskError: The model of the session has not been traced yet.
    """
    file = Path(path)
    if file.is_dir():
        raise BadCallError(
            f"Expected `path` to be a file to write, but got the folder {os.fspath(path)!r}. Pass a name that ends in "
            "'.html', 'report.html' in that folder for example."
        )
    _write_atomically(file, page(as_summary(source, accuracy)))
    return file


def _write_atomically(file: Path, text: str) -> None:
    """Write a temporary file next to the final one, and rename it when it is complete."""
    draft = file.with_name(f".{file.name}.{secrets.token_hex(4)}.tmp")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        draft.write_text(text, encoding="utf-8", errors="backslashreplace")
        draft.replace(file)
    except OSError as error:
        raise BadCallError(
            f"Expected to write the report to {os.fspath(file)!r}, but got {type(error).__name__}: {error}. Choose a "
            "file that you may write to."
        ) from error
    finally:
        with suppress(OSError):  # already renamed, or never written
            draft.unlink()
