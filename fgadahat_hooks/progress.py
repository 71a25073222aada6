"""A progress bar for long work: only on a terminal, and only after the work has taken a second.

`rich` draws the bar on standard error and removes it when the work is done. No bar is drawn if standard error is not a
terminal, `rich` is not installed, the process is not rank 0, another display of `rich` is open, or the environment has
`FGADAHAT_PROGRESS=0`.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

from fgadahat_hooks.errors import MissingDependencyError

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

__all__ = ["NO_BAR", "Bar", "progress", "require", "track"]

T = TypeVar("T")

DELAY = 1.0
"""Seconds of work before a bar is shown."""


class Bar:
    """The progress of some work. This base class draws nothing: each method returns at once.

    Attributes:
        visible: Whether it may be drawn; if not, callers can skip extra work that only serves to count steps.
    """

    visible = False

    def advance(self, steps: int = 1) -> None:
        """Count finished steps."""

    def restart(self, label: str) -> None:
        """Start again from zero with another label."""

    def close(self) -> None:
        """Remove it from the terminal."""


NO_BAR = Bar()


class _TerminalBar(Bar):
    """A bar on standard error, drawn from the first step after `DELAY` seconds."""

    visible = True

    def __init__(self, label: str, total: int | None) -> None:
        self._label, self._total, self._done = label, total, 0
        self._start = time.monotonic()
        self._display: Progress | None = None
        self._row: TaskID | None = None

    def advance(self, steps: int = 1) -> None:
        self._done += steps
        self._draw()

    def restart(self, label: str) -> None:
        self._label, self._done = label, 0
        self._draw()

    def close(self) -> None:
        if self._display is not None:
            self._display.stop()
            self._display = None

    def _draw(self) -> None:
        if self._display is None and time.monotonic() - self._start >= DELAY:
            self._display = _open_display()
            self._row = None if self._display is None else self._display.add_task(self._label, total=self._total)
        if self._display is not None and self._row is not None:
            done = self._done if self._total is None else min(self._done, self._total)
            self._display.update(self._row, completed=done, description=self._label)


@contextmanager
def progress(label: str, total: int | None = None) -> Iterator[Bar]:
    """Show the progress of the block, which calls `advance`.

    Args:
        label: What is done, in a few words.
        total: Number of steps; None if unknown.

    Yields:
        The bar; `NO_BAR` if none can be drawn.
    """
    bar = _TerminalBar(label, total) if _can_draw() else NO_BAR
    try:
        yield bar
    finally:
        bar.close()


def track(items: Iterable[T], label: str, total: int | None = None) -> Iterator[T]:
    """Iterate over items and show how many are done.

    Args:
        items: What to iterate over.
        label: What is done with them, in a few words.
        total: Number of items; None if unknown.

    Yields:
        The items.
    """
    with progress(label, total) as bar:
        for item in items:
            yield item
            bar.advance()


def require(asked: str) -> None:
    """Check that a progress bar which the user asked for can be drawn.

    Args:
        asked: The argument by which the user asked for it, for the message.

    Raises:
        MissingDependencyError: `rich` is not installed.
    """
    try:
        import rich.progress  # noqa: F401
    except ImportError as error:
        raise MissingDependencyError(f"{asked} needs the package rich: pip install rich") from error


def _can_draw() -> bool:
    terminal = sys.stderr is not None and sys.stderr.isatty() and os.environ.get("TERM") != "dumb"
    return terminal and os.environ.get("FGADAHAT_PROGRESS") != "0" and os.environ.get("RANK", "0") == "0"


def _open_display() -> Progress | None:
    """Open a display of `rich`; None if `rich` is not installed or another display is open."""
    try:
        from rich.console import Console
        from rich.file_proxy import FileProxy
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
        from rich.progress import TimeRemainingColumn as Remaining
    except ImportError:
        return None
    if isinstance(sys.stderr, FileProxy):
        return None
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    # Output printed meanwhile goes above the bar, unless it is piped elsewhere.
    piped = sys.stdout is None or not sys.stdout.isatty()
    display = Progress(*columns, Remaining(), console=console, transient=True, redirect_stdout=not piped)
    display.start()
    return display
