"""Lines over the tasks, in percent of something."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from markupsafe import Markup

from fgadahat_hooks.report.svg import element, picture, stretched, text

HEIGHT = 220
"""Pixels between 0 and 100 %."""
_MARKS = 40
"""Lines of more points than these get no mark at each."""
_LABELS = 10


@dataclass(frozen=True)
class Series:
    """One line.

    Attributes:
        name: What it shows.
        values: One share a task, 0 to 1; NaN where there is none.
    """

    name: str
    values: tuple[float, ...]


def line_chart(title: str, description: str, lines: Sequence[Series], x_axis: str) -> Markup:
    """Draw up to two lines; they differ in colour, stroke and mark.

    Args:
        title: Name of the picture.
        description: What it shows, in a sentence, for those who do not see it.
        lines: The lines, all of the same length.
        x_axis: What the numbers below, 1 for the first task, count.

    Returns:
        The picture.
    """
    count = len(lines[0].values)
    parts = [*_grid(), *_ticks(count), text(x_axis, 50, HEIGHT + 38, "axis", text_anchor="middle")]
    for number, line in enumerate(lines):
        parts += [stretched(_path(line, number), height=HEIGHT), *_marks(line, number)]
    return picture(title, description, *parts, height=HEIGHT + 46, class_="chart lines")


def mark(number: int, x: str, y: float, label: str | None = None) -> Markup:
    """Draw the mark of a line: a disc for the first, a square for the second."""
    inside = () if label is None else (element("title", label),)
    if number == 0:
        return element("circle", *inside, cx=x, cy=y, r=5.5, class_="mark one")
    # A rectangle has no centre to place, hence the box around it.
    square = element("rect", *inside, x=-3, y=-3, width=6, height=6, class_="mark two")
    return element("svg", square, x=x, y=y, class_="open", aria_hidden="true")


def place(index: int, count: int) -> float:
    """Return where a task is, in percent of the width."""
    return 50.0 if count == 1 else 2 + 96 * index / (count - 1)


def _height(value: float) -> float:
    return HEIGHT * (1 - min(max(value, 0.0), 1.0))


def _grid() -> list[Markup]:
    lines = []
    for share in (0, 25, 50, 75, 100):
        y = _height(share / 100)
        lines.append(element("line", x1=0, x2="100%", y1=y, y2=y, class_="grid"))
        lines.append(text(f"{share} %", 0, y, "axis", dx=-8, dy="0.32em", text_anchor="end"))
    return lines


def _ticks(count: int) -> list[Markup]:
    step = math.ceil(count / _LABELS)
    shown = [index for index in range(count) if index % step == 0]
    return [text(str(i + 1), place(i, count), HEIGHT + 18, "axis", text_anchor="middle") for i in shown]


def _path(line: Series, number: int) -> Markup:
    """Draw what lies between two neighbours that both have a value."""
    count, steps = len(line.values), []
    for (a, before), (b, after) in pairwise(enumerate(line.values)):
        if not math.isnan(before) and not math.isnan(after):
            ends = [(place(i, count), _height(v) / HEIGHT * 100) for i, v in ((a, before), (b, after))]
            steps.append("M{:.4g} {:.4g}L{:.4g} {:.4g}".format(*ends[0], *ends[1]))
    return element("path", d="".join(steps), class_=f"line {'one' if number == 0 else 'two'}")


def _marks(line: Series, number: int) -> list[Markup]:
    count = len(line.values)
    if count > _MARKS:
        return []
    return [
        mark(number, f"{place(i, count):.4g}%", _height(value), f"{line.name}, task {i + 1}: {100 * value:.1f} %")
        for i, value in enumerate(line.values)
        if not math.isnan(value)
    ]
