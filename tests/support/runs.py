"""Small runs to inspect, each trained once per process; tests must not change them."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import torch
from torch.nn.functional import cross_entropy

import fgadahat_hooks as fh
from fgadahat_hooks.summary.summary import RunSummary, summarize
from tests.support.saving import Net, example

TASKS: tuple[str | int, ...] = ("birds", 2, "<script>alert('cars')</script>")
NAN = float("nan")
ACCURACY = [[0.9], [0.85, 0.8], [0.7, 0.8, 1.0]]
"""Accuracy on each task after learning each; later tasks were not measured."""


@cache
def session(mode: str = "fg_adahat", tasks: int = 3) -> fh.Session:
    """Return a session with a number of finished tasks; modes other than `fg_adahat` measure no importance."""
    torch.manual_seed(0)
    model = Net()
    found = fh.attach(model, {"adjustment": {"mode": mode}, "regularization": {"factor": 0.5}}, example())
    draw = torch.Generator().manual_seed(1)
    for name in TASKS[:tasks]:
        x, y = torch.randn(8, 6, generator=draw), torch.randint(0, 3, (8,), generator=draw)
        with found.task(name, num_classes=3) as task:
            optimizer = task.protect(torch.optim.AdamW(found.parameter_groups(lr=0.05)))
            model.train()
            for _ in task.batches(range(3)):
                optimizer.zero_grad()
                (cross_entropy(model(x), y) + task.regularization()).backward()
                optimizer.step()
    model.eval()
    return found


@cache
def summary(mode: str = "fg_adahat", tasks: int = 3, measured: bool = True) -> RunSummary:
    """Return the summary of such a session."""
    return summarize(session(mode, tasks), ACCURACY[:tasks] if measured and tasks else None)


@cache
def large(tasks: int, layers: int) -> RunSummary:
    """Return a summary of random values, of any size."""
    draw = torch.Generator().manual_seed(0)
    ids = tuple(f"task {number}" for number in range(tasks))
    names = [f"encoder.blocks.{number}.attention.proj" for number in range(layers)]
    plan = summary().plan
    return replace(
        summary(),
        tasks=ids,
        layers=dict.fromkeys(names, 8),
        masks={task: {name: torch.rand(8, generator=draw) < 0.3 for name in names} for task in ids},
        importance={},
        summed_importance={name: torch.rand(8, generator=draw) for name in names},
        capacity={task: 1 / (number + 1) for number, task in enumerate(ids)},
        rates={task: {f"{name}.weight": float(torch.rand((), generator=draw)) for name in names} for task in ids},
        plan=plan and replace(plan, tensors=tuple(replace(plan.tensors[0], name=f"{n}.weight") for n in names)),
        verified=None,
        accuracy=torch.rand(tasks, tasks, dtype=torch.float64, generator=draw),
    )
