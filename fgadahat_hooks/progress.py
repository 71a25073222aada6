"""A progress bar for long work: on a terminal only, and only once the work has taken a second.

A bar is drawn on standard error by `rich`, and is gone when the work is done. There is none where standard error is no
terminal, without `rich`, in processes other than the first of several, while another display of `rich` is open, or with
`FGADAHAT_PROGRESS=0` in the environment.
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
"""Seconds of work before a bar shows."""


class Bar:
    """How far some work is. This one is never seen: each call returns at once.

    Attributes:
        visible: Whether somebody may see it; whoever would do extra work to count need not, if not.
    """

    visible = False

    def advance(self, steps: int = 1) -> None:
        """Count steps that are done."""

    def restart(self, label: str) -> None:
        """Begin again at no step done, under another label."""

    def close(self) -> None:
        """Take it off the terminal."""


NO_BAR = Bar()


class _TerminalBar(Bar):
    """A bar on standard error, from the first step after `DELAY` on."""

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
    """Show how far the block is; it calls `advance`.

    Args:
        label: What is done, in a few words.
        total: How many steps there are; None if that cannot be told.

    Yields:
        The bar, which may be one that is never seen.
    """
    bar = _TerminalBar(label, total) if _somebody_sees() else NO_BAR
    try:
        yield bar
    finally:
        bar.close()


def track(items: Iterable[T], label: str, total: int | None = None) -> Iterator[T]:
    """Go over items and show how many are done.

    Args:
        items: Anything to go over.
        label: What is done with them, in a few words.
        total: How many there are; None if that cannot be told.

    Yields:
        The items.
    """
    with progress(label, total) as bar:
        for item in items:
            yield item
            bar.advance()


def require(asked: str) -> None:
    """Refuse a bar that somebody asked for and that cannot be drawn.

    Args:
        asked: How they asked for it.

    Raises:
        MissingDependencyError: `rich` is not installed.
    """
    try:
        import rich.progress  # noqa: F401
    except ImportError as error:
        raise MissingDependencyError(f"{asked} needs the package rich: pip install rich") from error


def _somebody_sees() -> bool:
    terminal = sys.stderr is not None and sys.stderr.isatty() and os.environ.get("TERM") != "dumb"
    return terminal and os.environ.get("FGADAHAT_PROGRESS") != "0" and os.environ.get("RANK", "0") == "0"


def _open_display() -> Progress | None:
    """Open a display of `rich`; None if it is not installed or another display has the terminal."""
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
    # What is printed meanwhile goes above the bar; but not what is piped elsewhere.
    piped = sys.stdout is None or not sys.stdout.isatty()
    display = Progress(*columns, Remaining(), console=console, transient=True, redirect_stdout=not piped)
    display.start()
    return display
