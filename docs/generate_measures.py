"""Write docs/measures.md from the measures' own docstrings: `python docs/generate_measures.py`."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import fgadahat_hooks as fh
from fgadahat_hooks.importance import AttributionMeasure, BaseMeasure

PAGE = Path(__file__).parent / "measures.md"
PARTS = Path(__file__).parent / "measures.in.md"


def page() -> str:
    """Return the page: the hand-written text around two tables."""
    classes = {name: fh.registry.measures.get(name) for name in fh.registry.measures.names()}
    closed = {n: c for n, c in classes.items() if not issubclass(c, AttributionMeasure)}
    attributions = {n: c for n, c in classes.items() if issubclass(c, AttributionMeasure)}
    text = PARTS.read_text(encoding="utf-8")
    return text.replace("{{closed}}", table(closed)).replace("{{attributions}}", table(attributions))


def table(classes: dict[str, type[BaseMeasure]]) -> str:
    """Return one table, one row per measure."""
    head = "| measure | formula and source | needs | cost | parameters | when |\n|---|---|---|---|---|---|\n"
    return head + "\n".join(row(name, cls) for name, cls in classes.items())


def row(name: str, cls: type[BaseMeasure]) -> str:
    """Return a measure's row."""
    text = inspect.cleandoc(cls.__doc__ or "")
    formula = " ".join(text.split("\n\n")[0].split())
    needs = ", ".join(sorted(cls.needs))
    cells = [f"`{name}`", formula, needs, cls.cost, parameters(cls), when(text)]
    return "| " + " | ".join(escape(cell) for cell in cells) + " |"


def when(text: str) -> str:
    """Return what the docstring says after `Choose it`."""
    found = re.search(r"^Choose it (.*?)(?=\n\n|\Z)", text, re.DOTALL | re.MULTILINE)
    return " ".join(found[1].split()) if found else ""


def parameters(cls: type[BaseMeasure]) -> str:
    """Return the keyword parameters with their defaults, own ones before inherited ones."""
    found: dict[str, str] = {}
    for base in cls.__mro__:
        init = base.__dict__.get("__init__")
        for parameter in inspect.signature(init).parameters.values() if init and issubclass(base, BaseMeasure) else ():
            if parameter.kind is parameter.KEYWORD_ONLY:
                found.setdefault(parameter.name, f"`{parameter.name}: {parameter.default}`")
    return ", ".join(found.values())


def escape(cell: str) -> str:
    """Keep bars inside a cell; in code they cannot be escaped otherwise."""
    return cell.replace("|", "\\|")


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
