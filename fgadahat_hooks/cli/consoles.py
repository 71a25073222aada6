"""Where commands write: plain text without markup, colours on a terminal only."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

_PIPED_WIDTH = 160
"""Columns of a table that goes into a file or another program."""


def out() -> Console:
    """Return standard output; what is in a name, `[0]` for one, is never taken for markup."""
    console = Console(markup=False, emoji=False, highlight=False)
    return console if console.is_terminal else Console(markup=False, emoji=False, highlight=False, width=_PIPED_WIDTH)


def err() -> Console:
    """Return standard error."""
    return Console(stderr=True, markup=False, emoji=False, highlight=False)


def write(text: str) -> None:
    """Write text to standard output as it is, however long its lines are."""
    out().print(text, soft_wrap=True)


def table(names: Sequence[str], right: Sequence[int] = ()) -> Table:
    """Return a table without rows.

    Args:
        names: Headings.
        right: Which columns hold numbers; they end at the right.
    """
    found = Table(box=None, padding=(0, 2, 0, 0), header_style="bold underline")
    for index, name in enumerate(names):
        found.add_column(name, justify="right" if index in right else "left", overflow="fold", no_wrap=index == 0)
    return found


def printable(text: str) -> str:
    """Return text that a terminal shows and does not obey: a name in a file of others may hold control characters."""
    return text if text.isprintable() else repr(text)
