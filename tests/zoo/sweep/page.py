"""docs/zoo.md: what the sweep found, in tables."""

from __future__ import annotations

import platform
from collections.abc import Iterable, Iterator, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from tests.support.tree import ROOT
from tests.zoo.sweep.row import Inputs, Kept, Row, fingerprint
from tests.zoo.sweep.subject import Subject

PAGE = ROOT / "docs" / "zoo.md"
TEXT = ROOT / "docs" / "zoo.in.md"
LIBRARIES = ("torch", "torchvision", "timm", "transformers")
TITLES = {
    "torchvision": "torchvision: all classification models",
    "timm": "timm: one or two of a family",
    "transformers": "transformers: small configurations",
    "odd": "Written by hand",
}
HEAD = (
    "model | parameters | gated | exact | over | unres. | unseen | inputs exact | closable | unsafe | static | "
    "AdamW | SGD kept | telling | trace | forward"
)


def write_page(rows: Sequence[Row], subjects: dict[str, Subject], path: Path = PAGE) -> None:
    """Write the page from all rows that there are, in the order of the catalogue."""
    text = TEXT.read_text(encoding="utf-8")
    for part, lines in _parts(rows, subjects).items():
        text = text.replace(f"{{{{{part}}}}}", "\n".join(lines))
    path.write_text("\n".join(line.rstrip() for line in text.splitlines()) + "\n", encoding="utf-8")


def _parts(rows: Sequence[Row], subjects: dict[str, Subject]) -> dict[str, Iterable[str]]:
    families = {f: [row for row in rows if subjects[row.name].family == f] for f in TITLES}
    current = fingerprint()
    stale = sum(row.source != current for row in rows)
    return {
        "count": [str(len(rows)) if len(rows) == len(subjects) else f"{len(rows)} (of {len(subjects)}, so far)"],
        "versions": [_versions()],
        "stale": [f"{stale} rows were measured on an earlier state of the source (†)."] if stale else [],
        "totals": _totals({**families, "all": rows}),
        "failures": _failures(rows),
        "tables": _tables(families, subjects, current),
    }


def _tables(families: dict[str, list[Row]], subjects: dict[str, Subject], current: str) -> Iterator[str]:
    for family, rows in families.items():
        yield f"## {TITLES[family]}\n"
        yield from _table(HEAD, (_cells(row, subjects[row.name], row.source == current) for row in rows))
        yield ""


def _versions() -> str:
    found = [f"Python {platform.python_version()}"]
    for library in LIBRARIES:
        try:
            found.append(f"{library} {version(library)}")
        except PackageNotFoundError:
            continue
    return ", ".join(found)


def _totals(families: dict[str, Sequence[Row]]) -> Iterator[str]:
    head = (
        "family | models | gated layers | layers exact | over | unres. | inputs exact | over | unres. | unsafe | "
        "models that leak | failed | largest difference | slowest trace, s | traces within 3 forwards + 1 s"
    )
    yield from _table(head, (_total(name, rows) for name, rows in families.items() if rows))


def _total(name: str, rows: Sequence[Row]) -> list[str]:
    layers, inputs = _sum(row.by_layer for row in rows), _sum(row.by_input for row in rows)
    kept = [k for row in rows for k in row.kept.values()]
    fast = sum(row.trace_seconds <= 3 * row.forward_seconds + 1 for row in rows)
    return [
        name,
        str(len(rows)),
        f"{sum(row.layers for row in rows):,}",
        *(_share(part, layers.total) for part in (layers.exact, layers.over, layers.unresolved)),
        *(_share(part, inputs.total) for part in (inputs.exact, inputs.over, inputs.unresolved)),
        str(inputs.unsafe),
        str(sum(bool(row.leaks) for row in rows)),
        str(sum(bool(row.errors) for row in rows)),
        f"{max((k.worst for k in kept), default=0.0):.0e}" if any(k.worst for k in kept) else "0",
        f"{max(row.trace_seconds for row in rows):.1f}",
        f"{fast} of {len(rows)}",
    ]


def _sum(parts: Iterable[Inputs]) -> Inputs:
    total = Inputs()
    for part in parts:
        total.exact += part.exact
        total.over += part.over
        total.unresolved += part.unresolved
        total.unsafe += part.unsafe
    return total


def _failures(rows: Sequence[Row]) -> Iterator[str]:
    failed = [row for row in rows if not row.passed]
    if failed:
        yield "Not as it should be:\n"
    for row in failed:
        problems = [*row.leaks, *(error.splitlines()[0] for error in row.errors)]
        yield f"- {row.name}: {'; '.join(problems)}"


def _cells(row: Row, subject: Subject, is_current: bool) -> list[str]:
    name = row.name.removeprefix(f"{subject.family} ") + (f" ({subject.note})" if subject.note else "")
    return [
        name if is_current else f"{name} †",
        _short(row.parameters),
        f"{row.layers} ({row.units:,})",
        *(str(n) for n in (row.by_layer.exact, row.by_layer.over, row.by_layer.unresolved, row.unseen)),
        _share(row.by_input.exact, row.by_input.total),
        _share(row.closable, row.by_input.total),
        str(row.by_input.unsafe),
        {True: "holds", False: "**fails**", None: "-"}[row.verified],
        *(_kept(row.kept.get(recipe)) for recipe in ("adamw", "sgd_kept")),
        f"{min(k.telling for k in row.kept.values()):.0%}" if row.kept else "-",
        f"{row.trace_seconds:.2f}",
        f"{row.forward_seconds:.3f}",
    ]


def _kept(kept: Kept | None) -> str:
    if kept is None:
        return "-"
    return "same bits" if kept.equal else f"**{kept.worst:.1e}**"


def _share(part: int, whole: int) -> str:
    """Return a percentage that says 100 % only where nothing is missing."""
    if whole == 0:
        return "-"
    share = 100 * part / whole
    return f"{share:.1f} %" if part in (0, whole) or 0.05 <= share < 99.95 else ("99.9 %" if share > 50 else "0.1 %")


def _short(number: int) -> str:
    return f"{number / 1e6:.1f} M" if number >= 1e5 else f"{number:,}"


def _table(head: str, rows: Iterable[Sequence[str]]) -> Iterator[str]:
    titles = head.split(" | ")
    yield f"| {head} |"
    yield "|---" + "|--:" * (len(titles) - 1) + "|"
    for row in rows:
        yield "| " + " | ".join(row) + " |"
