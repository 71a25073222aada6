"""A plain training loop that saves after each step and resumes from the folder, for the tests of saving."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset

import fgadahat_hooks as fh

STEPS = 3
"""Batches of an epoch."""
EPOCHS = 2
TASKS: tuple[tuple[str | int, int], ...] = (("birds", 3), (2, 4))
SPEC: dict[str, Any] = {
    "adjustment": {"mode": "fg_adahat", "intensity": 1.5e-7},
    "importance": {"type": "activation_abs"},
}


class Net(nn.Sequential):
    """Two hidden layers, a norm with running statistics, dropout, and a head."""

    def __init__(self, hidden: int = 8, classes: int = 3) -> None:
        super().__init__(
            nn.Linear(6, 12),
            nn.BatchNorm1d(12),
            nn.ReLU(),
            nn.Dropout(0.2),
            nn.Linear(12, hidden),
            nn.ReLU(),
            nn.Linear(hidden, classes),
        )


def example() -> Tensor:
    return torch.zeros(2, 6)


def loader(number: int, classes: int) -> DataLoader[tuple[Tensor, ...]]:
    """Return a loader that shuffles with torch's global random numbers."""
    draw = torch.Generator().manual_seed(number)
    x, y = torch.randn(8 * STEPS, 6, generator=draw), torch.randint(0, classes, (8 * STEPS,), generator=draw)
    return DataLoader(TensorDataset(x, y), batch_size=8, shuffle=True)


def learn(folder: Path, after_save: Callable[[fh.Session], None] = lambda _: None, spec: Any = None) -> fh.Session:
    """Learn all tasks, saving after each step and each task; resume from the folder if it has a save."""
    torch.manual_seed(0)
    if (folder / "manifest.json").exists():
        session = fh.load(Net(), folder)
        if session.interrupted is None:
            session.restore(folder)
    else:
        session = fh.attach(Net(), SPEC if spec is None else spec, example())
    for number, (name, classes) in enumerate(TASKS):
        if name not in session.tasks:
            for extra in _learn_one(session, folder, number, name, classes):
                session.save(folder, extra)
                after_save(session)
            session.save(folder)
            after_save(session)
    return session


def _learn_one(
    session: fh.Session, folder: Path, number: int, name: str | int, classes: int
) -> Iterator[dict[str, Any]]:
    resuming = session.interrupted == name
    with session.task(name, None if resuming else classes, resume=resuming) as task:
        optimizer = task.protect(torch.optim.AdamW(session.parameter_groups(lr=0.01, weight_decay=0.1)))
        scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 2, 0.5)
        extra = {"optimizer": optimizer, "scheduler": scheduler}
        if resuming:
            session.restore(folder, extra)
        for epoch in range(task.steps // STEPS, EPOCHS):
            for x, y in task.batches(loader(number, classes), start=task.steps - STEPS * epoch):
                session.model.train()
                optimizer.zero_grad()
                (cross_entropy(session.model(x), y) + task.regularization()).backward()
                optimizer.step()
                scheduler.step()
                yield extra


def tensors_of(value: Any, where: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every leaf of nested values with its place."""
    if isinstance(value, dict):
        for key, part in value.items():
            yield from tensors_of(part, f"{where}.{key!r}")
    elif isinstance(value, list | tuple):
        for place, part in enumerate(value):
            yield from tensors_of(part, f"{where}[{place}]")
    else:
        yield where, value


def bits(session: fh.Session, *, spec: bool = True) -> str:
    """Return a digest of every bit that a session and its model hold, with or without the spec."""
    found, state = hashlib.sha256(), session.state_dict()
    if not spec:
        del state["spec"]
    for where, value in tensors_of([dict(session.model.state_dict()), state]):
        raw = value.detach().numpy().tobytes() if isinstance(value, Tensor) else repr(value).encode()
        found.update(f"{where} {getattr(value, 'dtype', '')}".encode() + raw)
    return found.hexdigest()


class StopError(Exception):
    """Ends a loop after a save, as a crash would."""


def stop_after(count: int) -> Callable[[fh.Session], None]:
    """Return a function that stops a loop after a number of saves."""
    left = [count]

    def after_save(_: fh.Session) -> None:
        left[0] -= 1
        if left[0] == 0:
            raise StopError

    return after_save
