"""A LightningModule without this library, its data, Trainers, and the same training in a plain loop."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.optim import SGD, AdamW, Optimizer

import fgadahat_hooks as fh

Batch = tuple[Tensor, Tensor]
BATCHES = 6
"""Batches of an epoch."""

FREE = {"regularization": {"factor": 0.02}}
"""A small factor, so that about half of the units are used in these short runs."""

SPECS: dict[str, dict[str, Any]] = {
    "hat": {"adjustment": {"mode": "hat"}, **FREE},
    "fg_adahat": {
        "adjustment": {"mode": "fg_adahat"},
        "importance": {"type": "input_weight_gradient_abs_sum"},
        **FREE,
    },
    "gradient": {
        "adjustment": {"mode": "fg_adahat", "apply_to": "gradient"},
        "importance": {"type": "activation_abs"},
        "rest": "per_task",
        **FREE,
    },
    "random": {"adjustment": {"mode": "hat_random"}, **FREE},
}
OPTIMIZERS: dict[str, Callable[[Any], Optimizer]] = {
    "momentum": lambda parameters: SGD(parameters, lr=0.05, momentum=0.9, weight_decay=0.01),
    "adamw": lambda parameters: AdamW(parameters, lr=0.01, weight_decay=0.1),
}
QUIET: dict[str, Any] = {
    "accelerator": "cpu",
    "devices": 1,
    "logger": False,
    "enable_checkpointing": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
}
WARNINGS = [
    pytest.mark.filterwarnings("ignore:The '[a-z_]+' does not have many workers"),
    pytest.mark.filterwarnings(r"ignore:`isinstance\(treespec, LeafSpec\)` is deprecated:FutureWarning"),
    pytest.mark.filterwarnings("ignore:You defined a `validation_step` but have no `val_dataloader`"),
]
"""Expected warnings of Lightning."""


class Net(nn.Module):
    """Convolution, norm, an own parameter, a hidden layer and a head."""

    def __init__(self, classes: int = 3) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.scale = nn.Parameter(torch.ones(()))
        self.hidden = nn.Linear(4 * 16, 8)
        self.head = nn.Linear(8, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.conv(x)).relu() * self.scale
        return self.head(self.hidden(x.flatten(1)).relu())  # type: ignore[no-any-return]


class Learner(pl.LightningModule):
    """Classifies; its optimizer holds all its parameters in one group."""

    def __init__(self, optimizer: str = "adamw", schedule: Callable[[Optimizer], Any] | None = None) -> None:
        super().__init__()
        self.net = Net()
        self._optimizer = optimizer
        self._schedule = schedule
        self.on_step: Callable[[Learner, int], None] = lambda module, index: None
        self.losses: list[float] = []
        self.factor = 1.0

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)  # type: ignore[no-any-return]

    def training_step(self, batch: Batch, index: int) -> Tensor:
        self.on_step(self, index)
        loss = cross_entropy(self(batch[0]), batch[1]) * self.factor
        self.losses.append(loss.item())
        return loss

    def validation_step(self, batch: Batch, index: int, dataloader_idx: int = 0) -> None:
        self.log("loss", cross_entropy(self(batch[0]), batch[1]), add_dataloader_idx=True)

    def test_step(self, batch: Batch, index: int, dataloader_idx: int = 0) -> None:
        self.validation_step(batch, index, dataloader_idx)

    def predict_step(self, batch: Batch, index: int, dataloader_idx: int = 0) -> Tensor:
        return self(batch[0])  # type: ignore[no-any-return]

    def configure_optimizers(self) -> Any:
        optimizer = OPTIMIZERS[self._optimizer](self.parameters())
        return (
            optimizer if self._schedule is None else {"optimizer": optimizer, "lr_scheduler": self._schedule(optimizer)}
        )


class Loader:
    """The same batches in every epoch; saves its position in Lightning's checkpoints."""

    def __init__(self, task: int, classes: int = 3, count: int = BATCHES) -> None:
        draw = torch.Generator().manual_seed(100 + task)
        self.batches = [
            (torch.randn(8, 1, 4, 4, generator=draw), torch.randint(0, classes, (8,), generator=draw))
            for _ in range(count)
        ]
        self.place = 0

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[Batch]:
        start, self.place = self.place % len(self.batches), self.place % len(self.batches)
        for batch in self.batches[start:]:
            self.place += 1
            yield batch

    def state_dict(self) -> dict[str, int]:
        return {"place": self.place}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.place = state["place"]


def attached(
    module: Learner, spec: str | dict[str, Any] | fh.AttachSpec = "hat", whole: bool = False, **options: Any
) -> fh.Session:
    """Attach to a learner, or to the net inside it."""
    asked = SPECS[spec] if isinstance(spec, str) else spec
    return fh.attach(module if whole else module.net, asked, torch.zeros(2, 1, 4, 4), **options)


def learner(optimizer: str = "adamw", schedule: Any = None, seed: int = 0) -> Learner:
    torch.manual_seed(seed)
    return Learner(optimizer, schedule)


def trainer(callbacks: list[pl.Callback], **options: Any) -> pl.Trainer:
    """Return a Trainer without anything that writes."""
    return pl.Trainer(**{**QUIET, "max_epochs": 2, **options}, callbacks=callbacks)


def everything(session: fh.Session, *optimizers: Optimizer) -> dict[str, Any]:
    """Return all values of a model, and the states of its session and optimizers."""
    model = {name: value.clone() for name, value in session.model.state_dict().items()}
    return {
        "model": model,
        "session": session.state_dict(),
        "optimizers": [o.state_dict()["state"] for o in optimizers],
    }


def logits(session: fh.Session, task: str | int, x: Tensor) -> Tensor:
    """Return the evaluation logits of a finished task; the model stays in training mode."""
    session.model.eval()
    with torch.no_grad(), session.use(task):
        out: Tensor = session.model(x).clone()
    session.model.train()
    return out


def plain_fit(
    session: fh.Session,
    module: Learner,
    task_id: str | int,
    loader: Loader,
    *,
    classes: int = 3,
    epochs: int = 2,
    accumulate: int = 1,
    clip: float | None = None,
    bf16: bool = False,
) -> Optimizer:
    """Train as the Trainer does, in a plain loop: the last step of an epoch may have fewer batches."""
    with session.task(task_id, num_classes=classes, epochs=epochs) as task:
        optimizer = task.protect(OPTIMIZERS[module._optimizer](_groups(session, module)))
        _of_their_own(optimizer)
        for _ in range(epochs):
            module.train()
            for number, batch in enumerate(task.batches(loader), start=1):
                with torch.autocast("cpu", torch.bfloat16, enabled=bf16, cache_enabled=False):
                    loss = module.training_step(batch, number)
                ((loss + task.regularization()) / accumulate).backward()
                if number % accumulate and number != len(loader):
                    continue
                if clip is not None:
                    task.gradients_ready(optimizer)
                    torch.nn.utils.clip_grad_norm_([p for g in optimizer.param_groups for p in g["params"]], clip)
                optimizer.step()
                optimizer.zero_grad()
    return optimizer


def _groups(session: fh.Session, module: Learner) -> list[dict[str, Any]]:
    gates = list(session.embeddings.values())
    own = [p for p in module.parameters() if all(p is not gate for gate in gates)]
    return [{"params": own}, {"params": gates}]


def _of_their_own(optimizer: Optimizer) -> None:
    """Give the embeddings ten times the learning rate, and no weight decay."""
    own, gates = optimizer.param_groups
    gates.update(lr=10 * own["lr"], weight_decay=0.0)
