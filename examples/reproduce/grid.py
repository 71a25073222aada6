"""Many runs: those with a file are not repeated, so that the whole can be stopped and started again."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from examples.reproduce.recipe import Job
from examples.reproduce.run import Result, read, run, write


def run_all(
    jobs: Sequence[Job], runs: Path, data: Path | None, workers: int, console: Console, title: str
) -> list[Result]:
    """Run what has no file yet, show a bar, and return all results in the order of `jobs`.

    Args:
        jobs: The runs.
        runs: Folder of their files.
        data: Folder of Fashion-MNIST; None if no run needs it.
        workers: Processes to run them in; 1 runs them in this one.
        console: Where the bar goes.
        title: What the bar is called.
    """
    missing = [job for job in jobs if read(job, runs) is None]
    unique = list({job.key: job for job in missing}.values())
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, TimeRemainingColumn(), console=console, disable=not console.is_terminal) as progress:
        bar = progress.add_task(title, total=len(jobs), completed=len(jobs) - len(unique))
        for result in _results(unique, data, workers):
            write(result, runs)
            progress.advance(bar)
            if not console.is_terminal:
                console.print(describe(result), highlight=False, soft_wrap=True)
    return finished(jobs, runs)


def finished(jobs: Sequence[Job], runs: Path) -> list[Result]:
    """Return the results of those jobs that have a file, in their order."""
    found = [read(job, runs) for job in jobs]
    return [result | {"method": job.method} for job, result in zip(jobs, found, strict=True) if result is not None]


def _results(jobs: Sequence[Job], data: Path | None, workers: int) -> Iterator[Result]:
    if workers == 1 or len(jobs) < 2:
        for job in jobs:
            yield run(job, data)
        return
    # One thread a process: more would fight for the same cores, and the order of sums would depend on their number.
    pool = ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=_one_thread)
    try:
        waiting = [pool.submit(run, job, data) for job in jobs]
        for done in as_completed(waiting):
            yield done.result()
    finally:
        pool.shutdown(cancel_futures=True)


def _one_thread() -> None:
    torch.set_num_threads(1)


def cores() -> int:
    """Return how many processes this machine can take."""
    return max(1, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)


def describe(result: Result) -> str:
    """Return one line about a run."""
    settings, values = result["settings"], result["metrics"]
    learning = values["learning_accuracy"]
    more = "" if learning is None else f", learning {learning:.4f}"
    where = "validation" if settings["validate"] else "test"
    same = ", earlier logits bit-identical" if result["bit_identical"] else ""
    return (
        f"{settings['stream']} {result['method']} seed {settings['seed']}: {where} accuracy "
        f"{values['average_accuracy']:.4f}{more}{same}, {result['cpu_seconds']:.0f} s"
    )
