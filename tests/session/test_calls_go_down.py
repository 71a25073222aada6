"""From `attach` to an optimizer's step every call stays in its folder or goes down, but for what was handed down."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

import fgadahat_hooks as fh
from tests.support.tree import pyproject

PACKAGE = Path(fh.__file__).parent
FLOORS: list[str] = pyproject()["tool"]["importlinter"]["contracts"][0]["layers"]
FLOOR = {folder: -place for place, line in enumerate(FLOORS) for folder in line.split(" | ")}

WHILE_ATTACHING = {
    ("spec", "importance"),  # a spec makes the registered measure that it names, to check its parameters
    ("spec", "graph"),  # patterns ask which modules can be gated
}
WHILE_TRAINING = {
    ("distributed", "protection"),  # goes over the parameters that it was given one by one
    ("protection", "tasks"),  # the guard and the steps ask the task that they were built for
}


@cache
def folder_of(file: str) -> str | None:
    """Return the folder of the package that a file belongs to, or the name of a module beside the folders."""
    path = Path(file)
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py") if path.is_relative_to(PACKAGE) else None


def calls_upward(work: Callable[[], Any]) -> tuple[set[tuple[str, str]], Any]:
    """Return the pairs of folders whose first called into the second although that stands above, and the result."""
    found = set()

    def note(frame: FrameType, event: str, _: Any) -> None:
        if event != "call" or frame.f_back is None:
            return
        caller, called = folder_of(frame.f_back.f_code.co_filename), folder_of(frame.f_code.co_filename)
        if caller in FLOOR and called in FLOOR and FLOOR[called] > FLOOR[caller]:
            found.add((caller, called))

    sys.setprofile(note)
    try:
        result = work()
    finally:
        sys.setprofile(None)
    return found, result


def network() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 8), nn.ReLU(), nn.Linear(8, 2)
    )


def learn(session: fh.Session, name: str, x: torch.Tensor, y: torch.Tensor) -> None:
    with session.task(name) as task:
        optimizer = torch.optim.AdamW(session.parameter_groups(lr=1e-3))
        task.protect(optimizer)
        for batch, labels in task.batches([(x, y)] * 2):
            optimizer.zero_grad()
            (F.cross_entropy(session.model(batch), labels) + task.regularization()).backward()
            optimizer.step()


def test_a_call_upwards_is_found() -> None:
    model = network()
    found, _ = calls_upward(lambda: fh.plan(model, {"gates": {"targets": "all"}}, torch.randn(2, 1, 8, 8)))
    assert found == {("spec", "graph"), ("spec", "importance")}


def test_attach_and_training_call_downwards() -> None:
    x, y = torch.randn(8, 1, 8, 8), torch.randint(0, 2, (8,))
    model = network()
    found, session = calls_upward(lambda: fh.attach(model, fh.preset("fg_adahat", tasks=3), x))
    assert found == WHILE_ATTACHING
    for name in ("birds", "cars"):
        found, _ = calls_upward(partial(learn, session, name, x, y))
        assert found == WHILE_TRAINING
