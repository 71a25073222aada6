"""The results as Markdown tables."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable

from benchmarks.robust.cells import AGAIN, MAIN, SPECS
from benchmarks.robust.kinds import KINDS
from benchmarks.robust.rows import Found, Row

Belongs = Callable[[Row], bool]


def summary(rows: list[Row]) -> str:
    """Return mean gap, share at chance and number of tasks."""
    if not rows:
        return "–"
    at_chance = sum(row.at_chance for row in rows) / len(rows)
    return f"gap {sum(row.gap for row in rows) / len(rows):.1f}, at chance {at_chance:.1%} of {len(rows)}"


def table(rows: list[Row], groups: Iterable[tuple[str, Belongs]], specs: Iterable[str]) -> str:
    """Return one line a group of rows, one column a spec."""
    names = list(specs)
    lines = ["| | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
    for title, belongs in groups:
        values = [summary([row for row in rows if row.spec == name and belongs(row)]) for name in names]
        if any(value != "–" for value in values):
            lines.append(f"| {title} | " + " | ".join(values) + " |")
    return "\n".join(lines)


def by(rows: list[Row], key: Callable[[Row], str]) -> list[tuple[str, Belongs]]:
    """Return a group for each value of a key, in the order in which they come."""

    def belongs(value: str) -> Belongs:
        return lambda row: key(row) == value

    return [(value, belongs(value)) for value in dict.fromkeys(key(row) for row in rows)]


def optimizer(row: Row) -> str:
    """Return the optimizer, and for how long it lives."""
    if row.cell.optimizer == "sgd":
        return "SGD, momentum 0.9, one for all tasks"
    return "AdamW, one for all tasks" if row.cell.keeps_optimizer() else "AdamW, a fresh one for each task"


def rate(row: Row) -> str:
    """Return learning rate and epochs."""
    return f"{row.cell.optimizer}: {row.cell.lr:g}, {row.cell.epochs}"


def start(row: Row) -> str:
    """Return what the weights are at first."""
    return f"{row.cell.start} weights"


COLUMNS = (*MAIN, AGAIN)
WHOLE: list[tuple[str, Belongs]] = [
    ("all", lambda row: True),
    ("fresh weights, AdamW", lambda row: row.cell.start == "fresh" and row.cell.optimizer == "adamw"),
    ("lr 1e-3 and 5e-3 with 3 epochs", lambda row: row.cell.lr >= 1e-3 and row.cell.epochs == 3),
]


def kinds_table(rows: list[Row]) -> str:
    """Return the table by kind of model."""
    return table(rows, [*WHOLE, *by(rows, lambda row: row.cell.kind)], COLUMNS)


def rates_table(rows: list[Row]) -> str:
    """Return the table by learning rate and epochs."""
    return table(rows, by(rows, rate), COLUMNS)


def starts_table(rows: list[Row]) -> str:
    """Return the table by optimizer, by start, and by place in the row."""
    places = sorted(by(rows, lambda row: f"task {row.task + 1}"), key=lambda group: group[0])
    return table(rows, [*by(rows, optimizer), *by(rows, start), *places], COLUMNS)


def variants_table(rows: list[Row]) -> str:
    """Return the table of the specs that only models with tensors outside the gates try."""
    tried = [row for row in rows if row.cell.kind.startswith(("bert", "vit")) and row.cell.start == "fresh"]
    return table(tried, by(tried, lambda row: row.cell.kind), SPECS)


def worst_table(rows: list[Row]) -> str:
    """Return the tasks that end at chance or more than 10 points lower by share, one a line."""
    lines = ["| kind | start | optimizer | lr | epochs | seed | task | alone | in a row |", "|---" * 9 + "|"]
    for row in rows:
        if row.spec == "by share" and (row.at_chance or row.gap > 10):
            cell = row.cell
            what = (cell.kind, cell.start, cell.optimizer, f"{cell.lr:g}", cell.epochs, cell.seed, row.task + 1)
            lines.append("| " + " | ".join(map(str, what)) + f" | {row.alone:.3f} | {row.in_a_row:.3f} |")
    return "\n".join(lines)


def failures_table(found: Found) -> str:
    """Return the runs that failed, one a line."""
    if not found.failed:
        return "None."
    lines = ["| run | cell | what happened |", "|---|---|---|"]
    lines += [f"| {run.how} | {run.cell.title()} | {error} |" for run, error in found.failed]
    return "\n".join(lines)


def missing(found: Found) -> str:
    """Return how many runs are missing, by kind."""
    return ", ".join(f"{count} of {kind}" for kind, count in Counter(found.missing).items()) or "none"


def without_tasks(rows: list[Row]) -> str:
    """Return the kinds of which no task counts."""
    return "; ".join(kind for kind in KINDS if kind not in {row.cell.kind for row in rows}) or "none"


def tables(found: Found) -> str:
    """Return all tables, for a terminal."""
    rows = found.rows
    parts = [kinds_table(rows), rates_table(rows), starts_table(rows), variants_table(rows), worst_table(rows)]
    return "\n\n".join([*parts, "Failed: " + failures_table(found), f"{found.runs} runs; missing: {missing(found)}"])
