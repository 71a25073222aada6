"""Models at some stage of their life, and what is done wrong to them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

import fgadahat_hooks as fh
from fgadahat_hooks import errors
from fgadahat_hooks.importance import LayerView
from tests.support.small import backward, batches, learn, mlp, sgd

Stage = Literal["plain", "attached", "learnt", "running"]
X = torch.ones(2, 4, dtype=torch.float64)


class Net(nn.Module):
    """A layer with a norm, one that the forward never reaches, and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.ReLU())
        self.spare = nn.Linear(5, 5)
        self.head = nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x))  # type: ignore[no-any-return]


class Streamed:
    """Batches whose number nobody knows."""

    def __init__(self, count: int = 2) -> None:
        self.count = count

    def __iter__(self) -> Iterator[int]:
        return iter(range(self.count))


@dataclass
class World:
    """A model at some stage of its life."""

    model: nn.Module
    session: Any = None
    task: Any = None


@contextmanager
def world(stage: Stage) -> Iterator[World]:
    """Give a model: plain, attached, with task 'birds' finished, or with task 'cars' running after it."""
    made = World(Net() if stage == "plain" else mlp(4, 5, 3))
    if stage != "plain":
        made.session = fh.attach(made.model, {}, X)
    if stage in ("learnt", "running"):
        learn(made.session, "birds", batches(4, 3))
        made.model.zero_grad()
    try:
        if stage != "running":
            yield made
            return
        with made.session.task("cars") as made.task:
            yield made
            raise KeyboardInterrupt
    except KeyboardInterrupt:
        pass


@dataclass(frozen=True)
class CallCase:
    """A call, when it is made, and what it is told."""

    name: str
    stage: Stage
    call: Callable[[World], object]
    error: type[errors.FgadahatError]
    message: str


def wrong(value: object) -> Any:
    """Pass what a type checker would refuse."""
    return value


def raising(model: nn.Module) -> None:
    """Stand for a function of example inputs that has a fault."""
    raise KeyError("pixels")


def untraced() -> fh.Session:
    """Return a session of a model that has seen no batch."""
    return fh.attach(mlp(4, 5, 3), {})


class TwoHeads(nn.Module):
    """Gives two outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.left, self.right = nn.Linear(4, 5), nn.Linear(5, 3), nn.Linear(5, 2)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        h = torch.relu(self.body(x))
        return self.left(h), self.right(h)


def two_heads() -> fh.Session:
    """Return a session of a model with two heads."""
    return fh.attach(TwoHeads(), {}, torch.ones(2, 4))


def gone(w: World) -> fh.Session:
    """Return a session that has given its model back."""
    session = fh.attach(w.model, {"gates": {"exclude": "spare"}}, torch.ones(2, 4))
    session.detach()
    return session


def closed(w: World) -> Any:
    """Return a task that was left."""
    task = w.session.task("left")
    try:
        with task:
            raise KeyboardInterrupt
    except KeyboardInterrupt:
        return task


def run(session: fh.Session, name: Any, **options: Any) -> None:
    """Begin and end a task."""
    with session.task(name, **options):
        pass


def mixed(w: World, tasks: Any) -> None:
    """Evaluate two samples."""
    with w.session.use(tasks):
        w.model(X)


def go_over(w: World, loader: Any, **options: Any) -> None:
    """Go over a loader's batches."""
    for _ in w.task.batches(loader, **options):
        pass


def own_sgd(w: World) -> torch.optim.Optimizer:
    """Return an optimizer that nobody protects, with gradients to step on."""
    for p in w.model.parameters():
        p.grad = torch.ones_like(p)
    return torch.optim.SGD(w.model.parameters(), lr=0.1)


def without_embeddings(w: World) -> None:
    """Step a protected optimizer of the model's own parameters alone."""
    optimizer = w.task.protect(torch.optim.SGD([w.session.parameter_groups(lr=0.1)[0]]))
    w.task.anneal(1, 2)
    backward(w.session, w.task, batches(4, 3)[0])
    optimizer.step()


def without_annealing(w: World) -> None:
    """Step a protected optimizer though nobody set the gate scale."""
    optimizer = w.task.protect(sgd(w.session.parameter_groups(lr=0.1)))
    backward(w.session, w.task, batches(4, 3)[0])
    optimizer.step()


class Unfinished(fh.Measure):
    """A measure that does not say how it is computed."""


class Named(fh.Measure):
    """A measure that could be registered under another name."""

    def compute(self, view: LayerView) -> Tensor:
        return torch.ones(view.units)
