"""The few numbers that stand at the top."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from fgadahat_hooks.report.words import counted, percent, points
from fgadahat_hooks.summary.accuracy_summary import AccuracySummary
from fgadahat_hooks.summary.summary import RunSummary


@dataclass(frozen=True)
class Tile:
    """One number with its name, and a few words below.

    Attributes:
        name: What it is.
        value: The number, or a word.
        unit: What stands behind the number.
        note: The words below.
        state: Whether it says that something is right or wrong; the word says it, too.
    """

    name: str
    value: str
    unit: str
    note: str
    state: Literal["", "good", "bad"] = ""


def tiles(run: RunSummary, found: AccuracySummary | None) -> list[Tile]:
    """Return the tiles of a run."""
    return [*_learnt(run, found), *_room(run), _verified(run)]


def _learnt(run: RunSummary, found: AccuracySummary | None) -> list[Tile]:
    if found is None:
        return [Tile("Tasks", str(len(run.tasks)), "", "finished; no accuracy was given")]
    tasks = counted(len(found.end), "task")
    mean = Tile("Average accuracy", percent(found.average_accuracy), "%", f"over {tasks}, at the end")
    if len(found.end) < 2:
        return [mean]
    return [mean, Tile("Forgetting", points(found.forgetting), "points", "mean drop from a task's best accuracy")]


def _room(run: RunSummary) -> list[Tile]:
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


def _verified(run: RunSummary) -> Tile:
    found = run.verified
    if found is None:
        return Tile("Verified", "not run", "", "session.verify() proves that nothing leaks")
    if found.leaks:
        return Tile("Verified", "leaks", "", f"{counted(len(found.leaks), 'tensor')} change finished tasks", "bad")
    if len(found.tasks) < len(run.tasks):
        return Tile("Verified", "in part", "", f"{len(found.tasks)} of {counted(len(run.tasks), 'task')}; verify again")
    if found.by_choice:
        return Tile("Verified", "no leak", "", "but the spec lets later tasks change earlier ones", "good")
    what = "task keeps its" if len(found.tasks) == 1 else "tasks keep their"
    return Tile("Verified", "yes", "", f"{len(found.tasks)} finished {what} logits, bit for bit", "good")
