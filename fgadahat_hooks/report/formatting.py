"""Format numbers and names; rounding never turns a small difference into none."""

from __future__ import annotations

import math

from markupsafe import Markup, escape

NOTHING = "–"
"""Shown where nothing was measured."""

_ROUNDING = 1e-9
"""Differences up to this size are rounding errors of the computation."""


def percent(value: float | None, digits: int = 1) -> str:
    """Return a share in percent, without the percent sign.

    Only 0 is shown as 0 and only 1 as 100: other values that round to them become `<0.1` and `>99.9`.

    Args:
        value: A share, 0 to 1; NaN or None if unknown.
        digits: Decimal places.

    Returns:
        The number, or a dash.
    """
    if value is None or math.isnan(value):
        return NOTHING
    text, step = f"{100 * abs(value):.{digits}f}", 10**-digits
    if value > _ROUNDING and float(text) == 0:
        return f"<{step:.{digits}f}"
    if value < 1 - _ROUNDING and float(text) == 100:
        return f">{100 - step:.{digits}f}"
    return text


def points(value: float, signed: bool = False) -> str:
    """Return a difference of two shares in percentage points; small ones get more digits, so only 0 is shown as 0.

    Args:
        value: A difference, -1 to 1; NaN if unknown.
        signed: Write a plus sign before positive values.

    Returns:
        The number, or a dash.
    """
    if math.isnan(value):
        return NOTHING
    if abs(value) < _ROUNDING:
        return "0.0"
    size = f"{100 * abs(value):.1f}"
    sign = "−" if value < 0 else "+" if signed else ""
    return sign + (size if float(size) else f"{100 * abs(value):.1g}")


def number(value: float) -> str:
    """Return a number with three significant digits."""
    return NOTHING if math.isnan(value) else f"{value:#.3g}".rstrip(".")


def counted(count: int, one: str, many: str | None = None) -> str:
    """Return a count with its noun: `1 task`, `2 tasks`."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def break_at_dots(name: object) -> Markup:
    """Return a name that lines may break after its dots."""
    return Markup(".<wbr>").join(escape(part) for part in str(name).split("."))
