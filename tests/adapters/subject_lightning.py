"""Lightning in the conformance suite."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.plugins import MixedPrecision
from torch import Tensor

from fgadahat_hooks.adapters.lightning import callbacks
from tests.adapters.conformance import CLASSES, EPOCHS, Job


class _Learner(pl.LightningModule):
    """The job's model as a LightningModule."""

    def __init__(self, job: Job) -> None:
        super().__init__()
        self.net = job.model
        self._job = job

    def training_step(self, batch: tuple[Tensor, Tensor], _: int) -> Tensor:
        x, y = batch
        return self.net(x, labels=y)["loss"]  # type: ignore[no-any-return]

    def configure_optimizers(self) -> Any:
        return self._job.optimizer()


def _precision(job: Job) -> dict[str, Any]:
    if job.variant.scaled and job.device == "cpu":  # Lightning refuses the name on CPUs, but the plugin works
        return {"plugins": [MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu"))]}
    names = {torch.float32: "32-true", torch.bfloat16: "bf16-mixed", torch.float16: "16-mixed"}
    return {"precision": names[job.variant.dtype]}


def lightning(job: Job) -> None:
    """Train with a Lightning `Trainer`."""
    quiet: dict[str, Any] = dict.fromkeys(
        ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False
    )
    trainer = pl.Trainer(
        accelerator=job.device,
        devices=1,
        **_precision(job),
        max_epochs=EPOCHS,
        accumulate_grad_batches=job.variant.accumulate,
        gradient_clip_val=job.variant.clip,
        callbacks=callbacks(job.session, task=job.task, num_classes=CLASSES[job.task]),
        **quiet,
    )
    trainer.fit(_Learner(job), job.loader())
