"""Each task of each cell, in a row against alone, as a row of its own."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from benchmarks.robust.cells import Cell
from benchmarks.robust.kinds import KINDS
from benchmarks.robust.store import ALONE, Run, result


class Row(NamedTuple):
    """One task in one cell under one spec."""

    spec: str
    cell: Cell
    task: int
    alone: float
    in_a_row: float

    @property
    def gap(self) -> float:
        """Points that are missing to learning alone."""
        return 100 * (self.alone - self.in_a_row)

    @property
    def at_chance(self) -> bool:
        """Whether the task ended within 10 points of chance, 5 with ten classes."""
        kind = KINDS[self.cell.kind]
        return self.in_a_row < kind.chance + (0.1 if kind.classes < 10 else 0.05)


class Found(NamedTuple):
    """The tasks that count, the runs that failed, how many runs there are, and the kinds of those that are missing."""

    rows: list[Row]
    failed: list[tuple[Run, str]]
    runs: int
    missing: list[str]


def collect(cells: Iterable[Cell], held_out: bool) -> Found:
    """Collect what is there of some cells."""
    rows: list[Row] = []
    failed: list[tuple[Run, str]] = []
    missing: list[str] = []
    runs = 0
    for cell in cells:
        for run in (Run(cell, how) for how in (ALONE, *cell.specs())):
            made = result(run, held_out)
            if made is None:
                missing.append(cell.kind)
                continue
            runs += 1
            if made.error:
                failed.append((run, made.error))
        rows += _rows(cell, held_out)
    return Found(rows, failed, runs, missing)


def _rows(cell: Cell, held_out: bool) -> Iterator[Row]:
    """Give the tasks that the model learns alone to chance + 20 points."""
    best = result(Run(cell, ALONE), held_out)
    least = KINDS[cell.kind].chance + 0.2
    for name in cell.specs() if best is not None else ():
        made = result(Run(cell, name), held_out)
        if best is not None and made is not None:
            pairs = zip(best.accuracies, made.accuracies, strict=False)
            yield from (Row(name, cell, n, a, b) for n, (a, b) in enumerate(pairs) if a >= least)
