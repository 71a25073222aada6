"""A run of two tasks on two ranks that writes a checkpoint after each step and can resume from it."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel
from torch.optim import AdamW

import fgadahat_hooks as fh
from tests.adapters.ddp_worlds import SCALED, batch, images, kept, mine, normed

CLASSES = {"first": 3, "second": 5}
BATCHES, EPOCHS = 3, 2


def work(rank: int, folder: str, die_at: int | None = None) -> dict[str, Tensor]:
    """Learn both tasks, from the checkpoint in the folder if there is one; the second rank may die during training.

    Args:
        rank: This process.
        folder: Where the checkpoint is.
        die_at: Number of the step of the second task during which the second rank is killed.
    """
    torch.manual_seed(rank)
    session = fh.attach(normed(), SCALED, images(2, 0))
    file = Path(folder) / "checkpoint.pt"
    saved: dict[str, Any] | None = torch.load(file, weights_only=True) if file.exists() else None
    if saved is not None:
        session.load_state_dict(saved["session"])
        session.model.load_state_dict(saved["model"])
    for number, (name, classes) in enumerate(CLASSES.items()):
        if name in session.tasks:
            continue
        continues = session.interrupted == name
        with session.task(name, num_classes=None if continues else classes, resume=continues) as task:
            model = DistributedDataParallel(session.model)
            optimizer = task.protect(AdamW(session.parameter_groups(lr=1e-2, gate_lr=1e-2, weight_decay=0.1)))
            if continues and saved is not None:
                optimizer.load_state_dict(saved["optimizer"])
            model.train()
            for step in range(saved["step"] if continues and saved is not None else 0, EPOCHS * BATCHES):
                x, y = batch(number, step % BATCHES, mine(rank), classes, torch.float32)
                task.begin_batch(step % BATCHES + 1, BATCHES, (x, y))
                optimizer.zero_grad()
                loss = F.cross_entropy(model(x), y) + task.regularization()
                if rank == 1 and name == "second" and step == die_at:
                    os.kill(os.getpid(), signal.SIGKILL)
                loss.backward()
                optimizer.step()
                task.end_batch()
                if rank == 0:
                    _save(file, session, optimizer, step + 1)
    return kept(session)


def _save(file: Path, session: fh.Session, optimizer: AdamW, step: int) -> None:
    """Write a checkpoint atomically."""
    parts = {"session": session.state_dict(), "model": session.model.state_dict(), "optimizer": optimizer.state_dict()}
    torch.save({**parts, "step": step}, file.with_suffix(".new"))
    file.with_suffix(".new").replace(file)
