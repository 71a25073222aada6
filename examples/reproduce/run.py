"""One run, from its settings to its JSON."""

from __future__ import annotations

import json
import math
import platform
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from examples.reproduce.frozen import FrozenLearner
from examples.reproduce.learners import GatedLearner, JointLearner, Learner, PlainLearner, accuracy
from examples.reproduce.recipe import Job
from examples.reproduce.streams import STREAMS, Stream, Tasks
from fgadahat_hooks.metrics import functional as metrics

Result = dict[str, Any]
Matrix = list[list[float]]
Looks = list[dict[str, float]]


def stream_of(job: Job) -> Stream:
    """Return the stream of a run, shortened if the run says so."""
    stream = STREAMS[job.stream]
    return stream if job.tasks is None else replace(stream, tasks=job.tasks)


def run(job: Job, folder: Path | None) -> Result:
    """Train, judge after every task, and return all that is worth keeping."""
    begin = time.process_time()  # of this process alone: what else runs on the machine does not count
    stream = stream_of(job)
    tasks = Tasks(stream, job.seed, validate=job.validate, folder=None if job.stream == "S" else folder)
    torch.manual_seed(job.seed)
    looks: Looks
    identical: bool | None
    if job.recipe.kind == "joint":
        together = JointLearner(stream, job.recipe, tasks)
        matrix, looks, identical = _only_at_the_end(together, tasks), [], None
    else:
        matrix, looks, identical = _one_after_the_other(_learner(stream, job, tasks), tasks)
    square = torch.tensor(matrix, dtype=torch.float64)
    return {
        "key": job.key,
        "method": job.method,
        "settings": job.settings,
        "matrix": [[None if math.isnan(a) else a for a in row] for row in matrix],
        "metrics": scores(square),
        "identities": identities(square),
        "bit_identical": identical,
        "looks": looks,
        "cpu_seconds": time.process_time() - begin,
        "versions": {"torch": torch.__version__, "python": platform.python_version()},
    }


def _learner(stream: Stream, job: Job, tasks: Tasks) -> Learner:
    if job.recipe.kind == "gates":
        return GatedLearner(stream, job.recipe, tasks.example())
    if job.recipe.kind == "frozen":
        return FrozenLearner(stream, job.recipe)
    return PlainLearner(stream, job.recipe)


def _only_at_the_end(learner: JointLearner, tasks: Tasks) -> Matrix:
    judged = [tasks.judging(task) for task in range(len(tasks))]
    last = [accuracy(learner.logits(task, x), y) for task, (x, y) in enumerate(judged)]
    return [[math.nan] * len(tasks)] * (len(tasks) - 1) + [last]


def _one_after_the_other(learner: Learner, tasks: Tasks) -> tuple[Matrix, Looks, bool]:
    """Learn task after task; compare every earlier task's logits, bit for bit, with those right after it."""
    matrix: Matrix = []
    looks: Looks = []
    first: list[Tensor] = []
    identical = True
    for task in range(len(tasks)):
        learner.learn(task, tasks.training(task), tasks.stream.epochs)
        row = []
        for seen in range(task + 1):
            x, y = tasks.judging(seen)
            logits = learner.logits(seen, x)
            if seen == task:
                first.append(logits)
            identical = identical and torch.equal(logits, first[seen])
            row.append(accuracy(logits, y))
        matrix.append(row + [math.nan] * (len(tasks) - task - 1))
        if look := learner.looks():
            looks.append(look)
    return matrix, looks, identical


def scores(matrix: Tensor) -> dict[str, float | None]:
    """Return the metrics of an accuracy matrix; None where one is not defined."""
    found = {
        "average_accuracy": metrics.average_accuracy(matrix),
        "average_incremental_accuracy": metrics.average_incremental_accuracy(matrix),
        "learning_accuracy": metrics.learning_accuracy(matrix),
        "backward_transfer": metrics.backward_transfer(matrix),
        "forgetting": metrics.forgetting(matrix),
    }
    return {name: None if math.isnan(value := float(v)) else value for name, v in found.items()}


def identities(matrix: Tensor) -> dict[str, float | bool | None]:
    """Check `AA = LA + (T-1)/T BWT` and `F >= -BWT`; None where they are not defined."""
    tasks, value = len(matrix), scores(matrix)
    aa, la, bwt, drop = (value[n] for n in ("average_accuracy", "learning_accuracy", "backward_transfer", "forgetting"))
    if aa is None or la is None or bwt is None or drop is None:
        return {"difference": None, "average_is_learning_plus_transfer": None, "forgetting_covers_transfer": None}
    difference = abs(aa - la - (tasks - 1) / tasks * bwt)
    return {
        "difference": difference,
        "average_is_learning_plus_transfer": difference < 1e-12,
        "forgetting_covers_transfer": drop >= -bwt - 1e-12,
    }


def write(result: Result, folder: Path) -> None:
    """Write a run's file, whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{result['key']}.json"
    part = path.with_suffix(".part")
    part.write_text(json.dumps(result, indent=1, allow_nan=False) + "\n")
    part.replace(path)


def read(job: Job, folder: Path) -> Result | None:
    """Return a finished run, or None."""
    path = folder / f"{job.key}.json"
    if not path.is_file():
        return None
    found: Result = json.loads(path.read_text())
    return found
