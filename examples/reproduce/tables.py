"""From runs to tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from examples.reproduce.run import Result
from examples.reproduce.statistics import Interval, interval, paired

EARLIER = (
    "° runs of an earlier version of this page: same settings, images and seeds; another machine and version of torch."
)
METRICS = ("average_accuracy", "learning_accuracy", "backward_transfer", "forgetting")


@dataclass(frozen=True)
class Row:
    """One method on one stream, over its seeds.

    Attributes:
        method: Its name.
        results: One run a seed, by seed.
    """

    method: str
    results: Mapping[int, Result]

    @property
    def seeds(self) -> list[int]:
        """The seeds, in order."""
        return sorted(self.results)

    def values(self, metric: str) -> list[float]:
        """Return one number a seed; empty where the metric is not defined for this method."""
        found = [self.results[seed]["metrics"][metric] for seed in self.seeds]
        return [] if None in found else found

    def interval(self, metric: str) -> Interval | None:
        """Return mean and interval, None where the metric is not defined."""
        values = self.values(metric)
        return interval(values) if values else None

    def look(self, name: str, task: int = -1) -> float | None:
        """Return the mean over seeds of a number kept after a task, None if the method has none."""
        found = [self.results[seed]["looks"] for seed in self.seeds]
        if not all(looks and name in looks[task] for looks in found):
            return None
        return float(sum(looks[task][name] for looks in found) / len(found))

    @property
    def bit_identical(self) -> bool:
        """Whether no earlier task's logits ever changed, in any run."""
        return all(self.results[seed]["bit_identical"] is True for seed in self.seeds)

    @property
    def logits(self) -> str:
        """What became of earlier tasks' logits; empty where there are none, as in joint training."""
        if all(self.results[seed]["bit_identical"] is None for seed in self.seeds):
            return ""
        return "bit-identical" if self.bit_identical else "change"

    @property
    def hard(self) -> bool:
        """Whether this is hard HAT, which promises that nothing changes."""
        spec = self.results[self.seeds[0]]["settings"]["recipe"]["spec"]
        return bool(spec.get("adjustment", {}).get("mode") == "hat")

    @property
    def earlier(self) -> bool:
        """Whether the runs were made for an earlier page, with another torch, or too little of them is kept."""
        return any(self.results[seed].get("earlier", False) for seed in self.seeds)

    def after(self, tasks: int) -> list[float]:
        """Return for each seed the average accuracy over the first so many tasks, right after the last of them."""
        runs = [self.results[seed] for seed in self.seeds]
        kept = [run["after_each_task"] if run["matrix"] is None else None for run in runs]
        matrices = [run["matrix"] for run in runs]
        return [
            sum(matrix[tasks - 1][:tasks]) / tasks if means is None else means[tasks - 1]
            for matrix, means in zip(matrices, kept, strict=True)
        ]

    def lowest(self) -> float:
        """Return the lowest accuracy at the end of any task of any seed."""
        runs = [self.results[seed] for seed in self.seeds]
        return float(min(min(run["at_the_end"] if run["matrix"] is None else run["matrix"][-1]) for run in runs))


def rows_of(results: Sequence[Result], stream: str) -> dict[str, Row]:
    """Group the runs of a stream by method, in the order they come."""
    grouped: dict[str, dict[int, Result]] = {}
    for result in results:
        if result["settings"]["stream"] == stream:
            grouped.setdefault(result["method"], {})[result["settings"]["seed"]] = result
    return {method: Row(method, runs) for method, runs in grouped.items()}


def difference(row: Row, other: Row, metric: str = "average_accuracy") -> Interval | None:
    """Return the paired difference over the seeds that both have."""
    seeds = [seed for seed in row.seeds if seed in other.results]
    if not seeds:
        return None
    mine, theirs = ([r.results[seed]["metrics"][metric] for seed in seeds] for r in (row, other))
    return None if None in mine or None in theirs else paired(mine, theirs)


def table(rows: Mapping[str, Row], against: str) -> str:
    """Return a Markdown table of a stream; accuracies and shares in percent."""
    head = (
        "| method | seeds | average accuracy | learning accuracy | BWT | forgetting | minus "
        f"`{against}` | capacity | units used | earlier logits | CPU s a run |"
    )
    lines = [head, "|---|---|---|---|---|---|---|---|---|---|---|"]
    ranked = sorted(rows.values(), key=lambda row: -(row.interval("average_accuracy") or interval([0.0])).mean)
    lines += [_line(row, rows.get(against)) for row in ranked]
    if any(row.earlier for row in ranked):
        lines += ["", EARLIER]
    return "\n".join(lines) + "\n"


def _line(row: Row, reference: Row | None) -> str:
    cells = [str(len(row.seeds)), *(_text(row.interval(metric)) for metric in METRICS)]
    minus = None if reference is None or reference is row else difference(row, reference)
    cells.append("" if minus is None else minus.text(sign="+"))
    for name in ("capacity", "units_used"):
        look = row.look(name)
        cells.append("" if look is None else f"{100 * look:.3g}")
    cells.append(row.logits)
    cells.append(f"{sum(r['cpu_seconds'] for r in row.results.values()) / len(row.results):.0f}")
    mark = " °" if row.earlier else ""
    return f"| `{row.method}`{mark} | " + " | ".join(cells) + " |"


def _text(value: Interval | None) -> str:
    return "" if value is None else value.text()
