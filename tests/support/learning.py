"""A plain training loop over a few batches, and functions that inspect the trained model."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.optim import SGD, Adam, AdamW, Optimizer, RMSprop

import fgadahat_hooks as fh
from fgadahat_hooks.gates.gate import Gate
from fgadahat_hooks.gates.task_state import TaskId

Batch = tuple[Tensor, Tensor]


@dataclass
class Recipe:
    """How to make an optimizer, a new one for each task unless `keep` is set.

    Attributes:
        make: Creates it from parameter groups.
        lr: Learning rate of the weights.
        weight_decay: Of the weights.
        keep: Whether all tasks share one object.
    """

    make: Callable[[list[dict[str, Any]]], Optimizer]
    lr: float
    weight_decay: float = 0.0
    keep: bool = False
    _kept: Optimizer | None = field(default=None, init=False)

    def optimizer(self, session: fh.Session) -> Optimizer:
        """Return the optimizer for the task that has just begun."""
        if self._kept is not None:
            return self._kept
        made = self.make(session.parameter_groups(lr=self.lr, weight_decay=self.weight_decay))
        self._kept = made if self.keep else None
        return made


def recipe(name: str) -> Recipe:
    """Return one of the `RECIPES`, with nothing kept yet."""
    return RECIPES[name]()


RECIPES: dict[str, Callable[[], Recipe]] = {
    "sgd": lambda: Recipe(SGD, 0.02),
    "sgd_kept": lambda: Recipe(lambda groups: SGD(groups, momentum=0.9), 0.01, weight_decay=0.01, keep=True),
    "adam": lambda: Recipe(Adam, 1e-3),
    "adamw": lambda: Recipe(AdamW, 1e-3, weight_decay=0.1),
    "rmsprop": lambda: Recipe(RMSprop, 2e-4),
}


def learn(
    session: fh.Session,
    task_id: TaskId,
    batches: Sequence[Batch],
    how: Recipe,
    *,
    num_classes: int | None = None,
    accumulate: int = 1,
) -> list[float]:
    """Learn one task for one epoch; return the loss of each batch. `accumulate` batches make one step."""
    losses = []
    with session.task(task_id, num_classes=num_classes) as task:
        optimizer = task.protect(how.optimizer(session))
        session.model.train()
        for number, (x, y) in enumerate(task.batches(batches), start=1):
            loss = F.cross_entropy(session.model(x), y) + task.regularization()
            (loss / accumulate).backward()
            losses.append(loss.item())
            if number % accumulate == 0:
                optimizer.step()
                optimizer.zero_grad()
    return losses


class _Failing(list[Batch]):
    def __iter__(self) -> Iterator[Batch]:
        yield from super().__iter__()
        raise ZeroDivisionError


def breaking(batches: Sequence[Batch]) -> Sequence[Batch]:
    """Return batches after which the loader raises ZeroDivisionError."""
    return _Failing(batches)


def gates(session: fh.Session) -> list[Gate]:
    """Return the gates of an attached model."""
    return [module for module in session.model.modules() if isinstance(module, Gate)]


def logits(session: fh.Session, task_id: TaskId | Sequence[TaskId], x: Tensor) -> Tensor:
    """Return the evaluation logits of a finished task, or of one task a sample."""
    session.model.eval()
    with torch.no_grad(), session.use(task_id):
        out: Tensor = session.model(x).clone()
    return out
