"""A saved run as plain data: what `inspect --json` prints."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from fgadahat_hooks.summary.summary import RunSummary
from fgadahat_hooks.verify import VerifyReport


def run_data(summary: RunSummary) -> dict[str, Any]:
    """Return what `inspect` shows; tasks are a list in learning order, because ids need not be strings."""
    use = summary.unit_use()
    tasks = [
        {
            "id": task,
            "capacity": summary.capacity.get(task),
            "used_so_far": used,
            "notes": list(summary.notes.get(task, ())),
            "reuse": summary.reuse.get(task, {}),
            "units": {layer: use[layer][task] for layer in summary.layers},
        }
        for task, used in zip(summary.tasks, summary.use_after(), strict=True)
    ]
    return {
        "model": summary.model,
        "library": summary.library,
        "torch": summary.torch,
        "spec": summary.spec.model_dump(mode="json"),
        "layers": summary.layers,
        "tasks": tasks,
        "interrupted": summary.interrupted,
        "overlap": _rows(summary.overlap()),
        "accuracy": None if summary.accuracy is None else _rows(summary.accuracy),
        "verified": None if summary.verified is None else _verified(summary.verified),
    }


def _rows(matrix: Tensor) -> list[list[float | None]]:
    """Return rows with None for NaN, which JSON does not have."""
    return [[None if value != value else value for value in row] for row in matrix.tolist()]


def _verified(report: VerifyReport) -> dict[str, Any]:
    return {
        "tasks": list(report.tasks),
        "free": report.free,
        "kept": report.kept,
        "leaks": {name: list(tasks) for name, tasks in report.leaks.items()},
        "by_choice": list(report.by_choice),
        "training": None if report.training is None else str(report.training),
    }
