"""Wrong calls of the metrics of an accuracy matrix, and their error messages."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from fgadahat_hooks import metrics as fm
from fgadahat_hooks.errors import BadCallError

LABELS = torch.tensor([0, 1, 1])
SCORES = torch.eye(3)


def update(
    preds: Any = LABELS, target: Any = LABELS, learnt: Any = "birds", task: Any = "birds"
) -> Callable[[Any], None]:
    return lambda metric: metric.update(preds, target, learnt=learnt, task=task)


UPDATES = {
    "lists": (
        update([0], [0]),
        "Expected `preds` to be a tensor, but got [0]; and `target` to be a tensor, but got [0].",
    ),
    "both wrong": (
        update(torch.zeros(3), SCORES),
        "Expected `target` to be labels, (batch,) integers, but got torch.float32 of shape (3, 3); and `preds` to be "
        "labels, (batch,) integers, or scores, (batch, classes), but got torch.float32 of shape (3,).",
    ),
    "no classes": (
        update(torch.zeros(3, 0)),
        "Expected `preds` to be labels, (batch,) integers, or scores, (batch, classes), but got torch.float32 of shape "
        "(3, 0).",
    ),
    "lengths": (update(SCORES[:2]), "Expected `preds` and `target` to be of one length, but got 2 and 3."),
    "unknown task": (update(task="dogs"), "Expected `task` to be one of the tasks 'birds', 'cars', but got 'dogs'."),
    "unknown learnt": (update(learnt=0), "Expected `learnt` to be one of the tasks 'birds', 'cars', but got 0."),
    "unhashable learnt": (
        update(learnt=["birds"]),
        "Expected `learnt` to be one of the tasks 'birds', 'cars', but got ['birds'].",
    ),
    "several unknown": (
        update(task=["dogs", "birds", "cats"]),
        "Expected `task` to be one of the tasks 'birds', 'cars', but got 'dogs', 'cats'.",
    ),
    "too few ids": (
        update(task=["birds", "cars"]),
        "Expected `task` to be one id, or one for each of 3 samples, but got 2.",
    ),
}


@pytest.mark.parametrize(("call", "message"), UPDATES.values(), ids=UPDATES)
def test_update(call: Callable[[Any], None], message: str) -> None:
    metric = fm.AccuracyMatrix(["birds", "cars"])
    with pytest.raises(BadCallError) as caught:
        call(metric)
    assert str(caught.value) == message
    assert metric.seen.sum() == metric.correct.sum() == 0


NEEDED = "Expected `tasks` to be a number above 0 or a list of task ids, but got "
MADE: dict[str, tuple[Callable[[], Any], str]] = {
    "no tasks": (lambda: fm.AverageAccuracy(0), f"{NEEDED}0."),
    "an empty list": (lambda: fm.AverageAccuracy([]), f"{NEEDED}[]."),
    "a name": (lambda: fm.AverageAccuracy("birds"), f"{NEEDED}'birds'."),
    "a bool": (lambda: fm.AverageAccuracy(True), f"{NEEDED}True."),
    "twice": (
        lambda: fm.AverageAccuracy(["a", "b", "a"]),
        "Expected `tasks` to name each task once, but got 'a' more than once.",
    ),
    "unhashable": (
        lambda: fm.AverageAccuracy([["a"]]),  # type: ignore[list-item]
        "Expected `tasks` to hold ids that can be hashed, such as strings and ints, but got ['a'].",
    ),
    "references": (
        lambda: fm.ForwardTransfer(2, [0.1]),
        "Expected `independent` to be a number or to have shape (2,), one number a task of the matrix, but got shape "
        "(1,).",
    ),
    "joint": (
        lambda: fm.ForgettingRatio(2, torch.zeros(3, 3), 0.1),
        "Expected `joint` to be a number or to have shape (2,) or (2, 2), as the matrix has 2 tasks, but got shape "
        "(3, 3).",
    ),
    "reduction": (
        lambda: fm.Intransigence(2, 0.1, "sum"),  # type: ignore[arg-type]
        "Expected `reduction` to be one of ['last', 'mean', 'none'], but got 'sum'.",
    ),
}


@pytest.mark.parametrize(("make", "message"), MADE.values(), ids=MADE)
def test_construction(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(BadCallError) as caught:
        make()
    assert str(caught.value) == message
