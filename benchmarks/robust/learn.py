"""One run: each task alone in a model of its own, or all tasks in a row in one model with gates."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import SGD, AdamW, Optimizer

import fgadahat_hooks as fh
from benchmarks.robust.cells import TASKS, Cell
from benchmarks.robust.data import Data
from benchmarks.robust.kinds import KINDS


class Result(NamedTuple):
    """Accuracy of each task, and what went wrong, if anything did."""

    accuracies: list[float]
    error: str = ""


def batches(data: Data, size: int) -> list[tuple[Tensor, Tensor]]:
    """Return one epoch of batches in random order."""
    return [(data.x[rows], data.y[rows]) for rows in torch.randperm(len(data.y)).split(size)]


def outputs(model: nn.Module, x: Tensor) -> Tensor:
    """Return a model's outputs, in evaluation mode."""
    model.eval()
    with torch.no_grad():
        return torch.cat([model(part) for part in x.split(500)])


def accuracy(logits: Tensor, y: Tensor) -> float:
    """Return the share of samples that are classified right."""
    return float((logits.argmax(1) == y).double().mean())


def make_optimizer(name: str, groups: Any, lr: float) -> Optimizer:
    """Return AdamW with weight decay .05, or SGD with momentum .9."""
    if name == "sgd":
        return SGD(groups, lr=lr, momentum=0.9)
    return AdamW(groups, lr=lr, weight_decay=0.05)


def steps(model: nn.Module, optimizer: Optimizer, data: Iterable[tuple[Tensor, Tensor]], task: fh.Task | None) -> None:
    """Train on some batches: the loop of the documentation."""
    model.train()
    for x, y in data:
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        (loss if task is None else loss + task.regularization()).backward()
        optimizer.step()


@cache
def learnt_before(kind: str, seed: int) -> Mapping[str, Tensor]:
    """Return the weights of a model that was trained without gates on other data, three epochs."""
    subject = KINDS[kind]
    assert subject.before is not None
    torch.manual_seed(100 * seed + 50)
    model, data = subject.model(10), subject.before()
    optimizer = make_optimizer("adamw", model.parameters(), 2e-3)
    for _ in range(3):
        steps(model, optimizer, batches(data, subject.batch), None)
    return model.state_dict()


def build(cell: Cell, seed: int) -> nn.Module:
    """Return the model that a run starts with; a pretrained one has a fresh head."""
    subject = KINDS[cell.kind]
    before = {} if cell.start == "fresh" else learnt_before(cell.kind, cell.seed)
    torch.manual_seed(seed)
    model = subject.model(subject.classes)
    own = model.state_dict()
    model.load_state_dict({**own, **{name: x for name, x in before.items() if x.shape == own[name].shape}})
    return model


def task_data(cell: Cell, number: int, held_out: bool) -> Data:
    """Return the data of a task."""
    data = KINDS[cell.kind].task(number)
    return data.held_out() if held_out else data


def alone(cell: Cell, held_out: bool, first: int = 0) -> Result:
    """Train a model for each task; return the accuracies; `first` is added to the seeds."""
    found, size = [], KINDS[cell.kind].batch
    for number in range(TASKS):
        model, data = build(cell, 100 * cell.seed + first + number), task_data(cell, number, held_out)
        optimizer = make_optimizer(cell.optimizer, model.parameters(), cell.lr)
        for _ in range(cell.epochs):
            steps(model, optimizer, batches(data, size), None)
        found.append(accuracy(outputs(model, data.x_test), data.y_test))
    return Result(found)


def in_a_row(cell: Cell, spec: Mapping[str, Any], held_out: bool) -> Result:
    """Train one model on all tasks in a row; return the accuracies, and whether a finished task changed by a bit."""
    model, size = build(cell, 100 * cell.seed), KINDS[cell.kind].batch
    session = fh.attach(model, spec, task_data(cell, 0, held_out).x[:2])
    found, before = [], []
    optimizer: Optimizer | None = None
    for number in range(TASKS):
        data = task_data(cell, number, held_out)
        with session.task(number) as task:
            if optimizer is None or not cell.keeps_optimizer():
                optimizer = make_optimizer(cell.optimizer, session.parameter_groups(**_options(cell)), cell.lr)
            task.protect(optimizer)
            for _ in range(cell.epochs):
                steps(model, optimizer, task.batches(batches(data, size)), task)
        before.append(_logits(session, number, data))
        found.append(accuracy(before[-1], data.y_test))
    changed = [n for n, x in enumerate(before) if not torch.equal(x, _logits(session, n, task_data(cell, n, held_out)))]
    return Result(found, f"outputs changed of tasks {changed}" if changed else "")


def _options(cell: Cell) -> dict[str, float]:
    return {"lr": cell.lr} if cell.optimizer == "sgd" else {"lr": cell.lr, "weight_decay": 0.05}


def _logits(session: fh.Session, number: int, data: Data) -> Tensor:
    with session.use(number):
        return outputs(session.model, data.x_test)
