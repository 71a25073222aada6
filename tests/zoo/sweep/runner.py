"""One process a model, within a budget of time, smallest first; what has been done is not done again."""

from __future__ import annotations

import multiprocessing
import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Protocol

from fgadahat_hooks.progress import progress
from tests.zoo.sweep.row import Row, file_of, fingerprint, load
from tests.zoo.sweep.subject import Subject

ALONE = 1.5e8
"""Subjects of this rank or above run one at a time, for the sake of memory."""
LOADED = ["torchvision.models", "timm", "transformers", "torch._dynamo", "tests.zoo.sweep.examine"]
"""What the processes find imported: each is forked from one that imports these once."""


class Tell(Protocol):
    """Takes each row as it is done."""

    def __call__(self, row: Row) -> None:
        """Show it."""


@dataclass(frozen=True)
class Runner:
    """Examines subjects.

    Attributes:
        folder: Where rows are kept.
        jobs: Processes at a time.
        budget: Seconds for one model.
        fresh: Whether to do again what was done, and went well.
    """

    folder: Path
    jobs: int
    budget: int
    fresh: bool

    def run(self, every: Sequence[Subject]) -> None:
        """Examine all that has no row yet, or one that says it failed."""
        waiting = sorted((s for s in every if self._is_due(s)), key=lambda s: s.rank)
        light = [s for s in waiting if s.rank < ALONE]
        context = _context()
        with _progress(len(waiting)) as tell:
            for jobs, subjects in ((self.jobs, light), (1, waiting[len(light) :])):
                self._examine_all(subjects, jobs, context, tell)

    def _examine_all(self, subjects: Sequence[Subject], jobs: int, context: ForkServerContext, tell: Tell) -> None:
        with ThreadPoolExecutor(jobs) as pool:
            try:
                for done in as_completed([pool.submit(self._examine, s, context) for s in subjects]):
                    tell(done.result())
            except BaseException:  # an interrupt must not wait for all that has not begun
                pool.shutdown(wait=False, cancel_futures=True)
                raise

    def _is_due(self, subject: Subject) -> bool:
        row = load(subject.name, self.folder)
        return self.fresh or row is None or not row.passed

    def _examine(self, subject: Subject, context: ForkServerContext) -> Row:
        """Return the row that a process of its own wrote, completed if that died or took too long."""
        Row(subject.name, fingerprint(), errors=["process: not one part was done"]).save(self.folder)
        output = file_of(subject.name, self.folder).with_suffix(".txt")
        process = context.Process(target=examine_one, args=(subject.name, self.folder, output))
        process.start()
        process.join(self.budget)
        ended = "" if process.exitcode in (0, 1) else f"process: ended with status {process.exitcode}"
        if process.is_alive():
            ended = f"process: not done after {self.budget} s"
            process.kill()
            process.join()
        row = load(subject.name, self.folder) or Row(subject.name)
        if ended:
            row.errors.append(f"{ended}\n{output.read_text(errors='replace')[-1000:] if output.exists() else ''}")
            row.save(self.folder)
        output.unlink(missing_ok=True)
        return row


def examine_one(name: str, folder: Path, output: Path | None = None) -> None:
    """Examine one model in this process, and end it with status 1 if the model did not pass.

    Args:
        name: The model's.
        folder: Where its row goes.
        output: Takes what the model's code prints; the terminal when left out.
    """
    if output is not None:
        with output.open("w") as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
    import torch

    from tests.zoo.sweep.catalogue import subject
    from tests.zoo.sweep.examine import examine

    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    sys.exit(not examine(subject(name), lambda row: row.save(folder)).passed)


def _context() -> ForkServerContext:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(LOADED)
    return context


@contextmanager
def _progress(total: int) -> Iterator[Tell]:
    """Show a bar on a terminal, a line a model elsewhere."""
    if not sys.stderr.isatty():
        yield _print_line
        return
    with progress("models", total) as bar:

        def tell(row: Row) -> None:
            bar.advance()
            if not row.passed:
                _print_line(row)

        yield tell


def _print_line(row: Row) -> None:
    print(_line(row), file=sys.stderr, flush=True)  # noqa: T201


def _line(row: Row) -> str:
    problems = [*row.leaks, *(error.splitlines()[0] for error in row.errors)]
    return f"{row.name}: {'; '.join(problems) or 'ok'} ({row.seconds:.0f} s, {row.peak_mib} MiB)"
