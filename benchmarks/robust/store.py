"""Results in files, one a run, and the processes that compute those that are missing."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

import torch

from benchmarks.robust.cells import AGAIN, SPECS, Cell
from benchmarks.robust.learn import Result, alone, in_a_row

FOLDER = Path(".robust")
ALONE = "alone"


class Run(NamedTuple):
    """A cell and how it learns: alone, or in a row under a spec."""

    cell: Cell
    how: str

    def file(self, held_out: bool) -> Path:
        """Return where its result is kept."""
        title = f"{'validation ' if held_out else ''}{self.how} {self.cell.title()}"
        return FOLDER / f"{re.sub('[^a-z0-9.+-]+', '_', title)}.json"


def compute(run: Run, held_out: bool) -> None:
    """Compute one run and keep its result; an exception is kept, too."""
    torch.set_num_threads(1)
    begin = time.perf_counter()
    try:
        result = _run(run, held_out)
    except Exception as error:  # a run that fails is a result
        result = Result([], f"{type(error).__name__}: {error}"[:300])
    found = {"seconds": round(time.perf_counter() - begin, 2), **result._asdict()}
    FOLDER.mkdir(exist_ok=True)
    part = run.file(held_out).with_suffix(".part")
    part.write_text(json.dumps(found), encoding="utf-8")
    part.replace(run.file(held_out))


def _run(run: Run, held_out: bool) -> Result:
    if run.how in (ALONE, AGAIN):
        return alone(run.cell, held_out, first=0 if run.how == ALONE else 50)
    return in_a_row(run.cell, SPECS[run.how], held_out)


def compute_missing(runs: Iterable[Run], jobs: int, held_out: bool) -> None:
    """Compute the runs that have no file yet."""
    missing = [run for run in runs if not run.file(held_out).exists()]
    work = partial(compute, held_out=held_out)
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        for count, _ in enumerate(pool.map(work, missing), 1):
            if count % 50 == 0:
                print(f"{count} of {len(missing)} runs", flush=True)


def result(run: Run, held_out: bool) -> Result | None:
    """Return what a run found, or nothing if it has not been made."""
    file = run.file(held_out)
    if not file.exists():
        return None
    found = json.loads(file.read_text(encoding="utf-8"))
    return Result(found["accuracies"], found["error"])
