"""Everything that is found out about one model."""

from __future__ import annotations

import gc
import resource
import time
import traceback
from collections.abc import Callable
from functools import partial

import torch
from torch import nn

import fgadahat_hooks as fh
from fgadahat_hooks.errors import LeakError
from tests.differential.truth import randomise as randomise_for_truth
from tests.support.learning import recipe
from tests.support.zoo_models import randomise
from tests.zoo.sweep.graph import examine_graph, time_trace
from tests.zoo.sweep.row import Row, fingerprint
from tests.zoo.sweep.subject import Subject
from tests.zoo.sweep.tasks import VacuousError, learn_two

LARGE = 1e8
"""Parameters from which on what is left of one part must be gone before the next begins."""
TRIES = 5
"""Random masks may close every unit of a small layer; then other ones are drawn."""
RECIPES = ("adamw", "sgd_kept")
"""AdamW with weight decay 0.1, made anew for each task; SGD with momentum, one for all tasks."""


def examine(subject: Subject, save: Callable[[Row], None]) -> Row:
    """Return the row of one model; a part that fails does not keep the others from running.

    Args:
        subject: The model.
        save: Called with the row after each part, so that a process that dies leaves what it had found.
    """
    begun = time.perf_counter()
    row = Row(subject.name, fingerprint())

    def part(name: str, run: Callable[[], object]) -> bool:
        try:
            run()
        except Exception as error:
            row.errors.append(f"{name}: {type(error).__name__}: {error}\n{_tail(error)}")
        row.seconds = time.perf_counter() - begun
        row.peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
        save(row)
        if row.parameters > LARGE:
            gc.collect()
        return not row.errors

    torch.manual_seed(0)
    built: list[nn.Module] = []
    if part("build", lambda: built.append(subject.make())) and part("graph", partial(_graph, row, subject, *built)):
        part("random values", partial(randomise, built[0], subject.inputs(16, 1)))
        for name in RECIPES:
            part(name, partial(_tasks, row, subject, built[0], name))
    return row


def _spec(subject: Subject) -> dict[str, object]:
    return {"adjustment": {"mode": "hat"}, **subject.spec}


def _graph(row: Row, subject: Subject, model: nn.Module) -> None:
    row.parameters = sum(p.numel() for p in model.parameters())
    inputs = subject.inputs(2, 0)
    randomise_for_truth(model)
    time_trace(row, model, _spec(subject), inputs)
    session = fh.attach(model, _spec(subject), inputs)
    try:
        examine_graph(row, session, inputs)
    finally:
        session.detach()


def _tasks(row: Row, subject: Subject, model: nn.Module, name: str) -> None:
    """Learn two tasks; make the static proof after the first of the recipes."""
    for seed in range(TRIES):
        torch.manual_seed(seed)
        session = fh.attach(model, _spec(subject), subject.inputs(2, 0))
        try:
            row.kept[name] = learn_two(session, subject, recipe(name))
            row.verified = _verify(session) if name == RECIPES[0] else row.verified
            return
        except VacuousError:
            if seed == TRIES - 1:
                raise
        finally:
            session.detach()


def _verify(session: fh.Session) -> bool:
    try:
        session.verify()
    except LeakError:
        return False
    return True


def _tail(error: Exception, lines: int = 12) -> str:
    text = "".join(traceback.format_exception(error)).strip()
    return "\n".join(text.splitlines()[-lines:])
