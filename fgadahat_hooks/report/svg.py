"""SVG as escaped text, with names for screen readers, as wide as its container.

Horizontal positions are percentages and sizes are pixels, so that a picture fits a phone and its text keeps its size.
A `path` does not accept percentages; it goes into a `stretched` box of 100 by 100 units, where lines keep their width.
"""

from __future__ import annotations

from markupsafe import Markup, escape


def element(tag: str, *children: str, **attributes: object) -> Markup:
    """Return one element.

    Args:
        tag: Name of the element.
        *children: Content, escaped unless it is `Markup`.
        **attributes: `class_` becomes `class`, other `_` become `-`; attributes that are None are left out.

    Returns:
        The element.
    """
    named = {_attribute(key): value for key, value in attributes.items() if value is not None}
    head = Markup("").join(Markup(' {}="{}"').format(Markup(key), _short(value)) for key, value in named.items())  # noqa: S704
    inside = Markup("").join(escape(child) for child in children)
    return Markup("<{0}{1}>{2}</{0}>").format(Markup(tag), head, inside)  # noqa: S704


def picture(title: str, description: str, *children: str, height: int, class_: str = "chart") -> Markup:
    """Return a picture as wide as its container, with a title and a description for screen readers."""
    named = (element("title", title), element("desc", description))
    return element("svg", *named, *children, role="img", class_=class_, width="100%", height=height)


def stretched(*children: str, height: float | str = "100%", y: float = 0, box: str = "0 0 100 100") -> Markup:
    """Return a box whose content is stretched to the width of the picture."""
    options = {"viewBox": box, "preserveAspectRatio": "none", "aria_hidden": "true"}
    return element("svg", *children, y=y, width="100%", height=height, **options)


def text(words: str, x: float, y: float, class_: str | None = None, **attributes: object) -> Markup:
    """Return text at `x` percent of the width and `y` pixels."""
    return element("text", words, x=f"{_short(x)}%", y=y, class_=class_, **attributes)


def _attribute(name: str) -> str:
    kept = {"class_": "class"}
    return kept.get(name, name.replace("_", "-"))


def _short(value: object) -> object:
    return f"{value:.4g}" if isinstance(value, float) else value
