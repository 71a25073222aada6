"""Models at some stage of a session, and the wrong calls of the tables."""

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
    """A layer with a norm, a layer that the forward never reaches, and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.ReLU())
        self.spare = nn.Linear(5, 5)
        self.head = nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x))  # type: ignore[no-any-return]


class WithoutLength:
    """A loader without `__len__`."""

    def __init__(self, count: int = 2) -> None:
        self.count = count

    def __iter__(self) -> Iterator[int]:
        return iter(range(self.count))


@dataclass
class World:
    """A model at some stage of a session."""

    model: nn.Module
    session: Any = None
    task: Any = None


@contextmanager
def world(stage: Stage) -> Iterator[World]:
    """Give a model: plain, attached, with task 'birds' finished, or then with task 'cars' running."""
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
    """A call, the stage at which it is made, and the error it should raise."""

    name: str
    stage: Stage
    call: Callable[[World], object]
    error: type[errors.FgadahatError]
    message: str


def wrong(value: object) -> Any:
    """Return the value as `Any`, for arguments that a type checker would refuse."""
    return value


def raising(model: nn.Module) -> None:
    """Raise, as a faulty function of example inputs would."""
    raise KeyError("pixels")


def untraced() -> fh.Session:
    """Return a session of a model that has not been traced."""
    return fh.attach(mlp(4, 5, 3), {})


class TwoHeads(nn.Module):
    """A model with two outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.left, self.right = nn.Linear(4, 5), nn.Linear(5, 3), nn.Linear(5, 2)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        h = torch.relu(self.body(x))
        return self.left(h), self.right(h)


def two_heads() -> fh.Session:
    """Return a session of a model with two heads."""
    return fh.attach(TwoHeads(), {}, torch.ones(2, 4))


def detached(w: World) -> fh.Session:
    """Return a detached session."""
    session = fh.attach(w.model, {"gates": {"exclude": "spare"}}, torch.ones(2, 4))
    session.detach()
    return session


def ended_task(w: World) -> Any:
    """Return a task whose block was left by an exception."""
    task = w.session.task("left")
    try:
        with task:
            raise KeyboardInterrupt
    except KeyboardInterrupt:
        return task


def run_task(session: fh.Session, name: Any, **options: Any) -> None:
    """Begin and end a task."""
    with session.task(name, **options):
        pass


def evaluate_mixed(w: World, tasks: Any) -> None:
    """Evaluate two samples with one task each."""
    with w.session.use(tasks):
        w.model(X)


def iterate(w: World, loader: Any, **options: Any) -> None:
    """Iterate over `task.batches` of a loader."""
    for _ in w.task.batches(loader, **options):
        pass


def unprotected_sgd(w: World) -> torch.optim.Optimizer:
    """Return an optimizer that is not protected, of parameters with gradients."""
    for p in w.model.parameters():
        p.grad = torch.ones_like(p)
    return torch.optim.SGD(w.model.parameters(), lr=0.1)


def step_without_embeddings(w: World) -> None:
    """Step a protected optimizer that holds the model's own parameters but no task embeddings."""
    optimizer = w.task.protect(torch.optim.SGD([w.session.parameter_groups(lr=0.1)[0]]))
    w.task.anneal(1, 2)
    backward(w.session, w.task, batches(4, 3)[0])
    optimizer.step()


def step_without_annealing(w: World) -> None:
    """Step a protected optimizer without having set the gate scale."""
    optimizer = w.task.protect(sgd(w.session.parameter_groups(lr=0.1)))
    backward(w.session, w.task, batches(4, 3)[0])
    optimizer.step()


class Unfinished(fh.Measure):
    """A measure without `compute`."""


class Named(fh.Measure):
    """A measure that could be registered under another name."""

    def compute(self, view: LayerView) -> Tensor:
        return torch.ones(view.units)
