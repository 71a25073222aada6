"""What each rank runs with a Lightning `Trainer` in the DDP tests."""

from __future__ import annotations

import warnings
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.optim import AdamW
from torch.utils.data import DataLoader, TensorDataset

import fgadahat_hooks as fh
from fgadahat_hooks.adapters.lightning import callbacks
from tests.adapters.ddp_worlds import SCALED, images, kept, logits, normed


class Learner(pl.LightningModule):
    """An ordinary module without tasks."""

    def __init__(self) -> None:
        super().__init__()
        self.net = normed()

    def training_step(self, batch: tuple[Tensor, Tensor], _: int) -> Tensor:
        x, y = batch
        return F.cross_entropy(self.net(x), y)

    def configure_optimizers(self) -> Any:
        return AdamW(self.parameters(), lr=1e-3, weight_decay=0.1)


def lightning_tasks(rank: int, hard: bool) -> tuple[dict[str, Tensor], list[str], str]:
    """Learn three tasks, heads of three sizes; also name the tasks that changed."""
    warnings.simplefilter("ignore")  # Lightning's advice on loaders and loggers
    module = Learner()
    session = fh.attach(module.net, {"adjustment": {"mode": "hat"}} if hard else SCALED, images(2, 0))
    ended, kind = {}, ""
    for number, classes in enumerate((3, 5, 4)):
        name = f"task {number}"
        quiet: dict[str, Any] = dict.fromkeys(
            ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False
        )
        trainer = pl.Trainer(
            accelerator="cpu",
            devices=2,
            strategy="ddp",
            max_epochs=1,
            accumulate_grad_batches=2,
            gradient_clip_val=0.5,
            callbacks=callbacks(session, task=name, num_classes=classes),
            **quiet,
        )
        data = TensorDataset(images(24, number), torch.arange(24) % classes)
        module.train()  # Lightning trains in the mode that it finds
        trainer.fit(module, DataLoader(data, batch_size=4, shuffle=True))
        kind = type(trainer.strategy).__name__
        ended[name] = logits(session, name)
    return kept(session), [n for n, b in ended.items() if not torch.equal(b, logits(session, n))], kind
