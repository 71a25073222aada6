"""The colours of a report in the light and the dark scheme, with readable text on each."""

from __future__ import annotations

from collections.abc import Sequence

LEVELS = 25
"""Number of colours of the heat maps' scale, from 0 to 1."""

PALETTE = {
    "ground": ("#f5f6f8", "#0d1218"),
    "paper": ("#ffffff", "#141b23"),
    "inset": ("#eef1f5", "#1c2530"),
    "ink": ("#18212c", "#e7ecf2"),
    "soft": ("#525d6b", "#9dabba"),
    "rule": ("#dce1e8", "#2b3643"),
    "accent": ("#0a58a6", "#74b6f3"),
    "second": ("#a84a12", "#f2a56b"),
    "good": ("#14704a", "#62c893"),
    "bad": ("#b3261e", "#ff9186"),
}
"""Name of each colour, in the light and in the dark scheme."""

_SCALE = (
    ("#f1f6fb", "#a8cbe8", "#4f94cb", "#2160a3", "#123a73"),
    ("#18222d", "#1d4468", "#2f7ab3", "#74b6e6", "#e2f2ff"),
)
"""Stops of the scale, larger values further from the paper; ordered by lightness, for colour-blind readers too."""


def css() -> str:
    """Return the CSS custom properties of both schemes, and a class for each level of the scale."""
    light, dark = (_scheme(number) for number in (0, 1))
    return f"{light}\n@media (prefers-color-scheme: dark) {{\n{dark}\n}}\n@media print {{\n{light}\n}}"


def level(value: float) -> int:
    """Return the level of a value, clamped to 0 to 1."""
    return round(min(max(value, 0.0), 1.0) * (LEVELS - 1))


def scale(scheme: int) -> list[str]:
    """Return the colour of each level, `#rrggbb`; `scheme` is 0 for light, 1 for dark."""
    stops = [_to_oklab(stop) for stop in _SCALE[scheme]]
    return [_from_oklab(_between(stops, number / (LEVELS - 1))) for number in range(LEVELS)]


def text_on(colour: str) -> str:
    """Return black or white, whichever has more contrast on a colour; the contrast is never below 4.5."""
    return max(("#000000", "#ffffff"), key=lambda text: contrast(text, colour))


def contrast(one: str, other: str) -> float:
    """Return the contrast of two colours, 1 to 21, as WCAG 2 defines it."""
    low, high = sorted((_luminance(one), _luminance(other)))
    return (high + 0.05) / (low + 0.05)


def _scheme(number: int) -> str:
    names = "".join(f"--{name}: {colours[number]}; " for name, colours in PALETTE.items())
    levels = (f".h{n} {{ --cell: {c}; --on: {text_on(c)} }}" for n, c in enumerate(scale(number)))
    return "\n".join([f":root {{ {names}}}", *levels])


def _between(stops: Sequence[tuple[float, ...]], place: float) -> tuple[float, ...]:
    at = min(place * (len(stops) - 1), len(stops) - 1 - 1e-9)
    share = at - int(at)
    return tuple(a + (b - a) * share for a, b in zip(stops[int(at)], stops[int(at) + 1], strict=True))


# ------------------------------------------------------------------ colour spaces
def _linear(colour: str) -> tuple[float, ...]:
    channels = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    return tuple(c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels)


def _luminance(colour: str) -> float:
    red, green, blue = _linear(colour)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


# Oklab (Ottosson 2020): equal distances look about equal, so that neighbouring levels are equally distinct everywhere.
_TO_CONES = (
    (0.4122214708, 0.5363325363, 0.0514459929),
    (0.2119034982, 0.6806995451, 0.1073969566),
    (0.0883024619, 0.2817188376, 0.6299787005),
)
_FROM_CONES = (
    (4.0767416621, -3.3077115913, 0.2309699292),
    (-1.2684380046, 2.6097574011, -0.3413193965),
    (-0.0041960863, -0.7034186147, 1.7076147010),
)
_TO_LAB = (
    (0.2104542553, 0.7936177850, -0.0040720468),
    (1.9779984951, -2.4285922050, 0.4505937099),
    (0.0259040371, 0.7827717662, -0.8086757660),
)
_FROM_LAB = (
    (1.0, 0.3963377774, 0.2158037573),
    (1.0, -0.1055613458, -0.0638541728),
    (1.0, -0.0894841775, -1.2914855480),
)


def _times(matrix: Sequence[Sequence[float]], vector: Sequence[float]) -> tuple[float, ...]:
    return tuple(sum(m * v for m, v in zip(row, vector, strict=True)) for row in matrix)


def _to_oklab(colour: str) -> tuple[float, ...]:
    return _times(_TO_LAB, [cone ** (1 / 3) for cone in _times(_TO_CONES, _linear(colour))])


def _from_oklab(lab: Sequence[float]) -> str:
    linear = _times(_FROM_CONES, [cone**3 for cone in _times(_FROM_LAB, lab)])
    clipped = [min(max(c, 0.0), 1.0) for c in linear]
    channels = [12.92 * c if c <= 0.0031308 else 1.055 * c ** (1 / 2.4) - 0.055 for c in clipped]
    return "#" + "".join(f"{round(255 * c):02x}" for c in channels)
