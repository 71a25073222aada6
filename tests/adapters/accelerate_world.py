"""A small session and a task on an `Accelerator`."""

from __future__ import annotations

from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import AdamW
from torch.utils.data import DataLoader, TensorDataset

import fgadahat_hooks as fh
from fgadahat_hooks.adapters.accelerate import accelerate_task

X, Y = torch.randn(24, 4, generator=torch.Generator().manual_seed(0)), torch.arange(24) % 3


class Steps(fh.Callback):
    """Counts step events and records the scale of each batch."""

    def __init__(self) -> None:
        self.ready = self.after = 0
        self.norms: list[float] = []
        self.scales: list[float] = []

    def on_train_batch_start(self, context: fh.TaskContext) -> None:
        self.scales.append(float(next(iter(context.layers.values())).gate.context.scale))

    def on_gradients_ready(self, context: fh.TaskContext, optimizer: torch.optim.Optimizer) -> None:
        self.ready += 1
        grads = [p.grad.norm() for g in optimizer.param_groups for p in g["params"] if p.grad is not None]
        self.norms.append(float(torch.stack(grads).norm()))

    def on_after_optimizer_step(self, context: fh.TaskContext, optimizer: torch.optim.Optimizer) -> None:
        self.after += 1


def attached(steps: Steps | None = None) -> fh.Session:
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    callbacks: list[fh.Callback] = [fh.GradientAdjustCallback({"mode": "hat"})]
    return fh.attach(model, {}, X[:2], [*callbacks, steps] if steps else callbacks)


def loader(batch: int = 4) -> DataLoader[tuple[Tensor, ...]]:
    return DataLoader(TensorDataset(X, Y), batch_size=batch)


def learn(session: fh.Session, accelerator: Accelerator, name: str, model: nn.Module, clip: float | None = None) -> Any:
    """Learn a task and return the prepared model."""
    with accelerate_task(session, accelerator, name) as task:
        model, optimizer, batches = task.prepare(model, AdamW(session.parameter_groups(lr=1e-2)), loader())
        for x, y in task.batches(batches):
            with accelerator.accumulate(model):
                task.backward(F.cross_entropy(model(x), y))
                if clip is not None:
                    task.clip_grad_norm_(model.parameters(), clip)
                optimizer.step()
                optimizer.zero_grad()
    return model
