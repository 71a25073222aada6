"""Figures of a stream, as small SVG files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from examples.reproduce.tables import Row


def draw_all(rows: Mapping[str, Row], shown: tuple[str, ...], stream: str, folder: Path) -> list[Path]:
    """Draw accuracy over tasks, capacity over tasks, and stability against plasticity."""
    import matplotlib as mpl

    mpl.use("Agg")
    mpl.rcParams.update({"svg.hashsalt": stream, "svg.fonttype": "none", "font.size": 8})
    kept = {name: rows[name] for name in shown if name in rows}
    folder.mkdir(parents=True, exist_ok=True)
    return [
        _save(_accuracy(kept), folder / f"{stream}_accuracy.svg"),
        _save(_capacity(kept), folder / f"{stream}_capacity.svg"),
        _save(_trade(rows), folder / f"{stream}_trade.svg"),
    ]


def _figure(xlabel: str, ylabel: str) -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.2, 2.8), layout="constrained")
    axes = figure.subplots()
    axes.set_xlabel(xlabel)
    axes.set_ylabel(ylabel)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _accuracy(rows: Mapping[str, Row]) -> Any:
    figure, axes = _figure("tasks learnt", "average accuracy, %")
    for name, row in rows.items():
        if row.earlier:
            continue  # only the last average is kept of those
        first = next(iter(row.results.values()))
        tasks = len(first["matrix"] or first["after_each_task"])
        if row.values("learning_accuracy"):
            means = [100 * sum(row.after(t)) / len(row.seeds) for t in range(1, tasks + 1)]
            axes.plot(range(1, tasks + 1), means, label=name, linewidth=1)
    return _with_legend(figure, axes)


def _capacity(rows: Mapping[str, Row]) -> Any:
    figure, axes = _figure("tasks learnt", "network capacity, %")
    for name, row in rows.items():
        looks = [row.results[seed]["looks"] for seed in row.seeds]
        if all(looks):
            tasks = range(len(looks[0]))
            means = [100 * sum(look[t]["capacity"] for look in looks) / len(looks) for t in tasks]
            axes.plot([t + 1 for t in tasks], means, label=name, linewidth=1)
    return _with_legend(figure, axes)


def _with_legend(figure: Any, axes: Any) -> Any:
    if axes.lines:
        axes.legend(fontsize=6, frameon=False)
    return figure


def _trade(rows: Mapping[str, Row]) -> Any:
    figure, axes = _figure("stability: -BWT, points", "plasticity: learning accuracy, %")
    for name, row in rows.items():
        learning, transfer = row.interval("learning_accuracy"), row.interval("backward_transfer")
        if learning is not None and transfer is not None:
            x, y = -100 * transfer.mean, 100 * learning.mean
            axes.scatter([x], [y], s=8)
            axes.annotate(name, (x, y), fontsize=5, xytext=(2, 2), textcoords="offset points")
    return figure


def _save(figure: Any, path: Path) -> Path:
    figure.savefig(path, metadata={"Date": None})
    return path
