"""Learners: each takes one task after the other, and can then be asked about any task it has seen."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import fgadahat_hooks as fh
from examples.reproduce.nets import head_name
from examples.reproduce.recipe import Recipe
from examples.reproduce.streams import Batches, Stream, Tasks


class Learner(Protocol):
    """What the harness asks of a method."""

    def learn(self, task: int, batches: Batches, epochs: int) -> None:
        """Train on the next task."""

    def logits(self, task: int, x: Tensor) -> Tensor:
        """Return the outputs for a task that was learnt."""

    def looks(self) -> dict[str, float]:
        """Return numbers to keep after each task."""


def predict(model: nn.Module, x: Tensor) -> Tensor:
    """Return the outputs in evaluation mode."""
    model.eval()
    with torch.no_grad():
        return torch.cat([model(part) for part in x.split(1000)])


class PlainLearner:
    """Fine-tuning, or a fresh network for each task; a head for each task in either case."""

    def __init__(self, stream: Stream, recipe: Recipe) -> None:
        """Build the network."""
        self._stream, self._recipe = stream, recipe
        self.model = stream.network(recipe)
        self._head = head_name(self.model)
        self._kept: list[nn.Module] = []

    def learn(self, task: int, batches: Batches, epochs: int) -> None:
        """Train on the next task with a fresh head and a fresh optimizer."""
        if task:
            if self._recipe.kind == "independent":
                self.model = self._stream.network(self._recipe)
            self._put_head(fresh_head(self.model.get_submodule(self._head)))
        self._kept.append(self.model if self._recipe.kind == "independent" else self.model.get_submodule(self._head))
        train(self.model, self._recipe, batches, epochs)

    def logits(self, task: int, x: Tensor) -> Tensor:
        """Return the outputs for a task that was learnt."""
        if self._recipe.kind == "independent":
            return predict(self._kept[task], x)
        self._put_head(self._kept[task])
        return predict(self.model, x)

    def _put_head(self, head: nn.Module) -> None:
        self.model.set_submodule(self._head, head)

    def looks(self) -> dict[str, float]:
        """Return nothing."""
        return {}


def fresh_head(layer: nn.Module) -> nn.Linear:
    """Return a new head of the same size."""
    assert isinstance(layer, nn.Linear)  # noqa: S101  # the networks here all end in one
    return nn.Linear(layer.in_features, layer.out_features)


def train(model: nn.Module, recipe: Recipe, batches: Batches, epochs: int) -> None:
    """Train without gates."""
    optimizer = recipe.make_optimizer(model.parameters())
    schedule = recipe.make_schedule(optimizer, epochs * len(batches))
    model.train()
    for _ in range(epochs):
        for x, y in batches:
            optimizer.zero_grad()
            F.cross_entropy(model(x), y).backward()
            optimizer.step()
            schedule.step()


class GatedLearner:
    """Any method of the library, used as its guide shows."""

    def __init__(self, stream: Stream, recipe: Recipe, example: Tensor) -> None:
        """Attach to a fresh network."""
        self._stream, self._recipe = stream, recipe
        self.model = stream.network(recipe)
        self.session = fh.attach(self.model, recipe.spec, example)

    def learn(self, task: int, batches: Batches, epochs: int) -> None:
        """Train on the next task with a fresh optimizer."""
        recipe, session = self._recipe, self.session
        with session.task(task, num_classes=self._stream.classes) as running:
            groups = session.parameter_groups(lr=recipe.lr, gate_lr=recipe.gate_lr)
            optimizer = running.protect(recipe.make_optimizer(groups))
            schedule = recipe.make_schedule(optimizer, epochs * len(batches))
            self.model.train()
            for _ in range(epochs):
                for x, y in running.batches(batches):
                    optimizer.zero_grad()
                    loss = F.cross_entropy(self.model(x), y) + running.regularization()
                    loss.backward()
                    optimizer.step()
                    schedule.step()

    def logits(self, task: int, x: Tensor) -> Tensor:
        """Return the outputs for a task that was learnt."""
        with self.session.use(task):
            return predict(self.model, x)

    def looks(self) -> dict[str, float]:
        """Return the capacity that is left, and which share of all units is in use."""
        masks = torch.cat(list(self.session.cumulative_mask.values()))
        newest = torch.cat(list(self.session.masks(self.session.tasks[-1]).values()))
        return {
            "capacity": self.session.capacity(),
            "units_used": float(masks.float().mean()),
            "units_of_task": float(newest.float().mean()),
        }


class JointLearner:
    """All tasks together, a head each: batches of all tasks in turn, as many steps as the others make in all."""

    def __init__(self, stream: Stream, recipe: Recipe, tasks: Tasks) -> None:
        """Build the network and train it."""
        self.model = stream.network(recipe)
        self._head = head_name(self.model)
        self._heads = [fresh_head(self.model.get_submodule(self._head)) for _ in range(len(tasks))]
        batches = [tasks.training(t) for t in range(len(tasks))]
        parameters = {id(p): p for p in [*self.model.parameters(), *(p for h in self._heads for p in h.parameters())]}
        optimizer = recipe.make_optimizer(list(parameters.values()))
        schedule = recipe.make_schedule(optimizer, stream.epochs * sum(map(len, batches)))
        self.model.train()
        for _ in range(stream.epochs):
            for task, x, y in _in_turn(batches):
                self.model.set_submodule(self._head, self._heads[task])
                optimizer.zero_grad()
                F.cross_entropy(self.model(x), y).backward()
                optimizer.step()
                schedule.step()

    def logits(self, task: int, x: Tensor) -> Tensor:
        """Return the outputs for a task."""
        self.model.set_submodule(self._head, self._heads[task])
        return predict(self.model, x)


def _in_turn(batches: list[Batches]) -> Iterator[tuple[int, Tensor, Tensor]]:
    """Go over one epoch of all tasks, a batch of each in turn."""
    for together in zip(*batches, strict=True):
        for task, (x, y) in enumerate(together):
            yield task, x, y


def accuracy(logits: Tensor, labels: Tensor) -> float:
    """Return the share of labels that are right."""
    return float((logits.argmax(1) == labels).double().mean())
