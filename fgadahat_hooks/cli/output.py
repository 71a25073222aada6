"""The consoles that commands write to: plain text without markup, colours only on a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

_PIPED_WIDTH = 160
"""Width of tables when output is not a terminal."""


def stdout() -> Console:
    """Return a console on standard output; names such as `[0]` are never read as markup."""
    console = Console(markup=False, emoji=False, highlight=False)
    return console if console.is_terminal else Console(markup=False, emoji=False, highlight=False, width=_PIPED_WIDTH)


def stderr() -> Console:
    """Return a console on standard error."""
    return Console(stderr=True, markup=False, emoji=False, highlight=False)


def write_plain(text: str) -> None:
    """Write text to standard output without wrapping lines."""
    stdout().print(text, soft_wrap=True)


def new_table(names: Sequence[str], right: Sequence[int] = ()) -> Table:
    """Return a table without rows.

    Args:
        names: Headings.
        right: Indices of columns that are aligned to the right, such as numbers.
    """
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold underline")
    for index, name in enumerate(names):
        table.add_column(name, justify="right" if index in right else "left", overflow="fold", no_wrap=index == 0)
    return table


def printable(text: str) -> str:
    """Return text that is safe to print: names in untrusted files may hold control characters."""
    return text if text.isprintable() else repr(text)
