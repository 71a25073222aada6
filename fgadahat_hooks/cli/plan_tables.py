"""A plan as coloured tables."""

from __future__ import annotations

from rich.table import Table
from rich.text import Text

from fgadahat_hooks.cli.output import new_table, stdout
from fgadahat_hooks.protection.plan import (
    Plan,
    advice_lines,
    layer_rows,
    leak_lines,
    memory_lines,
    regate_lines,
    tensor_rows,
)

_COLOURS = {"gated": "green", "per_task": "cyan", "frozen": "blue", "shared": "bold red"}
_WIDE = 110
"""Terminal width from which all columns of the table are shown."""


def print_plan(plan: Plan) -> None:
    """Print a plan: layers, tensors by protection, what can leak."""
    console = stdout()
    rows = layer_rows(plan)
    narrow = console.width < _WIDE
    console.print(_coloured_table([row[:-1] for row in rows] if narrow else rows, right=(2, 4, 5)))
    if narrow:
        text = f"Who feeds each layer is shown in a terminal of {_WIDE} columns or more, and by --json."
        console.print(text, style="dim")
    for line in regate_lines(plan):
        console.print(line, style="dim")
    console.print()
    console.print(_coloured_table(tensor_rows(plan), right=(2, 3)))
    for line in memory_lines(plan):
        console.print(line, style="yellow" if plan.memory_advice else "dim")
    console.print()
    for line in leak_lines(plan):
        console.print(line, style="yellow" if plan.leaks else "green")
    for line in advice_lines(plan):
        console.print(line, style="yellow")


def _coloured_table(rows: list[tuple[str, ...]], right: tuple[int, ...]) -> Table:
    table = new_table(rows[0], right)
    for first, *others in rows[1:]:
        table.add_row(Text(first, style=_COLOURS.get(first, "")), *others)
    return table
