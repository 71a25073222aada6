"""Values between 0 and 1 by row and column: a table with coloured cells, or a picture if the table were too large."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from markupsafe import Markup

from fgadahat_hooks.report.formatting import percent
from fgadahat_hooks.report.palette import level
from fgadahat_hooks.report.svg import element, picture, stretched, text

MAX_COLUMNS = 20
MAX_CELLS = 1200
"""Maps with more columns or cells than these show no numbers."""
_LABELS = 12


@dataclass(frozen=True)
class Cell:
    """The text of a cell and the level of its colour, None where nothing was measured."""

    text: str
    level: int | None


@dataclass(frozen=True)
class HeatMap:
    """The content of a heat map.

    Attributes:
        title: Quantity of the values, with its unit.
        rows: What a row stands for, such as "layer".
        columns: What a column stands for, such as "task".
        row_names: Name of each row.
        column_names: Name of each column.
        values: One list a row; NaN where nothing was measured.
        digits: Decimal places of the percentages.
    """

    title: str
    rows: str
    columns: str
    row_names: Sequence[str]
    column_names: Sequence[str]
    values: Sequence[Sequence[float]]
    digits: int = 0

    @property
    def numbered(self) -> bool:
        """Whether the map is small enough to show numbers."""
        columns = len(self.column_names)
        return columns <= MAX_COLUMNS and columns * len(self.row_names) <= MAX_CELLS

    @property
    def gaps(self) -> bool:
        """Whether some values were not measured."""
        return any(math.isnan(value) for row in self.values for value in row)

    @property
    def cells(self) -> list[tuple[str, list[Cell]]]:
        """Each row's name and cells."""
        rows = ([Cell(percent(v, self.digits), _cell_level(v)) for v in row] for row in self.values)
        return list(zip(self.row_names, rows, strict=True))

    @property
    def drawn(self) -> Markup:
        """The map as a picture without numbers."""
        return _draw(self)


def _cell_level(value: float) -> int | None:
    return None if math.isnan(value) else level(value)


def _draw(heat_map: HeatMap) -> Markup:
    rows, columns = len(heat_map.row_names), len(heat_map.column_names)
    height = rows * min(max(600 // rows, 2), 14)
    box = f"0 0 {columns} {rows}"
    cells = [element("path", d=d, class_="none" if n is None else f"cell h{n}") for n, d in _paths(heat_map).items()]
    across = [
        text(str(i + 1), 100 * (i + 0.5) / columns, -6, "axis", text_anchor="middle") for i in _label_positions(columns)
    ]
    down = [
        text(str(i + 1), 0, height * (i + 0.5) / rows, "axis", dx=-6, dy="0.32em", text_anchor="end")
        for i in _label_positions(rows)
    ]
    size = f"{rows} rows ({heat_map.rows}), {columns} columns ({heat_map.columns})"
    description = f"{size}. The further a cell's colour is from the page's, the larger is its value."
    inside = stretched(*cells, height=height, box=box)
    return picture(heat_map.title, description, inside, *across, *down, height=height, class_="chart map")


def _label_positions(count: int) -> range:
    return range(0, count, math.ceil(count / _LABELS))


def _paths(heat_map: HeatMap) -> dict[int | None, str]:
    """Return one path a level over all its cells, neighbours in a row merged: a hundred times smaller than a table."""
    outlines: dict[int | None, list[str]] = {}
    for y, row in enumerate(heat_map.values):
        x = 0
        for found, group in groupby(map(_cell_level, row)):
            width = len(list(group))
            outlines.setdefault(found, []).append(f"M{x} {y}h{width}v1h-{width}z")
            x += width
    return {found: "".join(parts) for found, parts in outlines.items()}
