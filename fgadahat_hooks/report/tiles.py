"""The key numbers at the top of the report."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from fgadahat_hooks.report.formatting import counted, percent, points
from fgadahat_hooks.summary.accuracy_summary import AccuracySummary
from fgadahat_hooks.summary.summary import RunSummary


@dataclass(frozen=True)
class Tile:
    """One number with its name and a short note.

    Attributes:
        name: Name of the number.
        value: The number, or a word.
        unit: Unit after the number.
        note: Text below the number.
        state: Colour of a good or bad result, which `value` says in words too.
    """

    name: str
    value: str
    unit: str
    note: str
    state: Literal["", "good", "bad"] = ""


def tiles(run: RunSummary, accuracy: AccuracySummary | None) -> list[Tile]:
    """Return the tiles of a run."""
    return [*_accuracy_tiles(run, accuracy), *_capacity_tiles(run), _verification_tile(run)]


def _accuracy_tiles(run: RunSummary, accuracy: AccuracySummary | None) -> list[Tile]:
    if accuracy is None:
        return [Tile("Tasks", str(len(run.tasks)), "", "finished; no accuracy was given")]
    tasks = counted(len(accuracy.end), "task")
    mean = Tile("Average accuracy", percent(accuracy.average_accuracy), "%", f"over {tasks}, at the end")
    if len(accuracy.end) < 2:
        return [mean]
    return [mean, Tile("Forgetting", points(accuracy.forgetting), "points", "mean drop from a task's best accuracy")]


def _capacity_tiles(run: RunSummary) -> list[Tile]:
    if not run.tasks or not run.layers:
        return []
    free, units = 1 - run.use_after()[-1], sum(run.layers.values())
    capacity = run.capacity.get(run.tasks[-1])
    return [
        Tile(
            "Network capacity",
            percent(capacity),
            "" if capacity is None else "%",
            "mean rate at which gated weights may still move",
        ),
        Tile("Free units", percent(free), "%", f"of {units:,} are used by no task"),
    ]


def _verification_tile(run: RunSummary) -> Tile:
    report = run.verified
    if report is None:
        return Tile("Verified", "not run", "", "session.verify() proves that nothing leaks")
    if report.leaks:
        return Tile("Verified", "leaks", "", f"{counted(len(report.leaks), 'tensor')} change finished tasks", "bad")
    if len(report.tasks) < len(run.tasks):
        return Tile(
            "Verified", "in part", "", f"{len(report.tasks)} of {counted(len(run.tasks), 'task')}; verify again"
        )
    if report.by_choice:
        return Tile("Verified", "no leak", "", "but the spec lets later tasks change earlier ones", "good")
    what = "task keeps its" if len(report.tasks) == 1 else "tasks keep their"
    return Tile("Verified", "yes", "", f"{len(report.tasks)} finished {what} logits, bit for bit", "good")
