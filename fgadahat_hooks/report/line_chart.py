"""A line chart over the tasks, in percent."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from markupsafe import Markup

from fgadahat_hooks.report.svg import element, picture, stretched, text

HEIGHT = 220
"""Pixels between 0 and 100 %."""
_MAX_MARKERS = 40
"""Lines with more points than this get no markers."""
_LABELS = 10


@dataclass(frozen=True)
class Series:
    """One line.

    Attributes:
        name: What the line shows.
        values: One share a task, 0 to 1; NaN if unknown.
    """

    name: str
    values: tuple[float, ...]


def line_chart(title: str, description: str, lines: Sequence[Series], x_axis: str) -> Markup:
    """Draw up to two lines, which differ in colour, stroke and marker.

    Args:
        title: Title of the picture.
        description: One sentence on what it shows, for screen readers.
        lines: The lines, all of the same length.
        x_axis: Label below the task numbers, which begin at 1.

    Returns:
        The picture.
    """
    count = len(lines[0].values)
    parts = [*_grid(), *_ticks(count), text(x_axis, 50, HEIGHT + 38, "axis", text_anchor="middle")]
    for number, line in enumerate(lines):
        parts += [stretched(_path(line, number), height=HEIGHT), *_markers(line, number)]
    return picture(title, description, *parts, height=HEIGHT + 46, class_="chart lines")


def marker(number: int, x: str, y: float, label: str | None = None) -> Markup:
    """Draw the marker of a line: a disc for the first line, a square for the second."""
    inside = () if label is None else (element("title", label),)
    if number == 0:
        return element("circle", *inside, cx=x, cy=y, r=5.5, class_="mark one")
    # A rectangle is not positioned by its centre, hence the nested <svg>.
    square = element("rect", *inside, x=-3, y=-3, width=6, height=6, class_="mark two")
    return element("svg", square, x=x, y=y, class_="open", aria_hidden="true")


def x_percent(index: int, count: int) -> float:
    """Return the x position of a task, in percent of the width."""
    return 50.0 if count == 1 else 2 + 96 * index / (count - 1)


def _y_pixels(value: float) -> float:
    return HEIGHT * (1 - min(max(value, 0.0), 1.0))


def _grid() -> list[Markup]:
    lines = []
    for share in (0, 25, 50, 75, 100):
        y = _y_pixels(share / 100)
        lines.append(element("line", x1=0, x2="100%", y1=y, y2=y, class_="grid"))
        lines.append(text(f"{share} %", 0, y, "axis", dx=-8, dy="0.32em", text_anchor="end"))
    return lines


def _ticks(count: int) -> list[Markup]:
    step = math.ceil(count / _LABELS)
    shown = [index for index in range(count) if index % step == 0]
    return [text(str(i + 1), x_percent(i, count), HEIGHT + 18, "axis", text_anchor="middle") for i in shown]


def _path(line: Series, number: int) -> Markup:
    """Draw the segments between neighbours that both have a value."""
    count, steps = len(line.values), []
    for (a, before), (b, after) in pairwise(enumerate(line.values)):
        if not math.isnan(before) and not math.isnan(after):
            ends = [(x_percent(i, count), _y_pixels(v) / HEIGHT * 100) for i, v in ((a, before), (b, after))]
            steps.append("M{:.4g} {:.4g}L{:.4g} {:.4g}".format(*ends[0], *ends[1]))
    return element("path", d="".join(steps), class_=f"line {'one' if number == 0 else 'two'}")


def _markers(line: Series, number: int) -> list[Markup]:
    count = len(line.values)
    if count > _MAX_MARKERS:
        return []
    return [
        marker(
            number, f"{x_percent(i, count):.4g}%", _y_pixels(value), f"{line.name}, task {i + 1}: {100 * value:.1f} %"
        )
        for i, value in enumerate(line.values)
        if not math.isnan(value)
    ]
