"""A small model in double precision, and functions that train it for a few steps."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.optim import Optimizer

import fgadahat_hooks as fh

Batch = tuple[Tensor, Tensor]
Make = Callable[[Any], Optimizer]


def mlp(*sizes: int) -> nn.Sequential:
    """Return fully connected layers with ReLU between them, in double precision."""
    modules: list[nn.Module] = []
    for inputs, outputs in pairwise(sizes):
        modules += [nn.Linear(inputs, outputs, dtype=torch.float64), nn.ReLU()]
    return nn.Sequential(*modules[:-1])


def batches(features: int, classes: int, count: int = 2, samples: int = 5) -> list[Batch]:
    """Return a few batches of noise with random labels."""
    return [
        (torch.randn(samples, features, dtype=torch.float64), torch.randint(0, classes, (samples,)))
        for _ in range(count)
    ]


def sgd(groups: Any) -> Optimizer:
    """Return plain SGD over groups with their own learning rates."""
    return torch.optim.SGD(groups)


def backward(session: fh.Session, task: fh.Task, batch: Batch) -> Tensor:
    """Run one forward and backward; return the loss."""
    x, y = batch
    loss = cross_entropy(session.model(x), y) + task.regularization()
    loss.backward()
    return loss.detach()


def train(session: fh.Session, task: fh.Task, optimizer: Optimizer, data: Iterable[Batch]) -> None:
    """Train on each batch once, with one step a batch."""
    for batch in task.batches(list(data)):
        optimizer.zero_grad()
        backward(session, task, batch)
        optimizer.step()


def learn(session: fh.Session, name: str | int, data: Iterable[Batch], make: Make = sgd, lr: float = 0.1) -> None:
    """Learn one task with its own optimizer; embeddings change little, so that about half of the units stay on."""
    with session.task(name) as task:
        train(session, task, task.protect(make(session.parameter_groups(lr=lr, gate_lr=0.01))), data)


class LeftError(Exception):
    """Raised to leave a task."""


@contextmanager
def aborted(session: fh.Session, name: str | int) -> Iterator[fh.Task]:
    """Begin a task and leave it by an exception at the end of the block."""
    try:
        with session.task(name) as task:
            yield task
            raise LeftError
    except LeftError:
        pass


def snapshot(model: nn.Module) -> dict[str, Tensor]:
    """Copy every parameter and buffer, gates included."""
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def embeddings(session: fh.Session) -> list[nn.Parameter]:
    """Return the task embeddings, in the order of the layers."""
    group: list[nn.Parameter] = session.parameter_groups(lr=1.0)[1]["params"]
    return group
