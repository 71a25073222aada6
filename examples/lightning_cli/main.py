r"""LightningCLI: the spec is a block of the config, and every `fit` learns one task.

    python examples/lightning_cli/main.py fit --config examples/lightning_cli/fit.yaml
    python examples/lightning_cli/main.py fit --config examples/lightning_cli/fit.yaml \
        --hat.task odd --hat.after tasks/even.ckpt

Each writes `tasks/<task>.ckpt` at its end, and tests every task learnt so far. It needs lightning, jsonargparse and
scikit-learn.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from fgadahat_hooks.adapters.lightning import TaskCallback
from fgadahat_hooks.adapters.lightning.cli import TaskCLI

QUIET: dict[str, Any] = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar"), False)
TASKS = {"even": (0, 2, 4, 6, 8), "odd": (1, 3, 5, 7, 9)}


class Classifier(pl.LightningModule):
    """Any LightningModule with an `example_input_array`.

    Args:
        width: Number of hidden units.
        lr: Learning rate.
    """

    def __init__(self, width: int = 64, lr: float = 2e-3) -> None:
        """Make the network."""
        super().__init__()
        self.save_hyperparameters()
        self.example_input_array = torch.zeros(2, 64)
        self.net = nn.Sequential(nn.Linear(64, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU())
        self.head = nn.Linear(width, 5)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits."""
        logits: Tensor = self.head(self.net(x))
        return logits

    def training_step(self, batch: tuple[Tensor, Tensor], _: int) -> Tensor:
        """Return the loss."""
        return F.cross_entropy(self(batch[0]), batch[1])

    def test_step(self, batch: tuple[Tensor, Tensor], *_: Any) -> None:
        """Log the accuracy."""
        self.log("accuracy", (self(batch[0]).argmax(1) == batch[1]).float().mean())

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return AdamW."""
        return torch.optim.AdamW(self.parameters(), lr=self.hparams["lr"], weight_decay=0.05)


def load(task: str, test: bool) -> DataLoader[Any]:
    """Return the digits of a task, labels counted within it."""
    digits = load_digits()
    target = torch.tensor(digits.target)
    keep = torch.isin(target, torch.tensor(TASKS[task])) & ((torch.arange(len(target)) % 4 == 0) == test)
    data = TensorDataset(torch.tensor(digits.data, dtype=torch.float32)[keep] / 16, target[keep] // 2)
    return DataLoader(data, batch_size=256 if test else 32, shuffle=not test)


class DigitsCLI(TaskCLI):
    """Passes the task's data to the module, and adds the steps after a fit."""

    def before_fit(self) -> None:
        """Give the module the task's data."""
        self.model.train_dataloader = lambda: load(self.task, test=False)

    @property
    def task(self) -> str:
        """Name of the task in the config."""
        return str(self.config["fit"]["hat"]["task"])

    def after_fit(self) -> None:
        """Save a checkpoint, and test all tasks."""
        Path("tasks").mkdir(exist_ok=True)
        self.trainer.save_checkpoint(f"tasks/{self.task}.ckpt")  # the task has ended: others may start from it
        names = [str(task) for task in self.session.tasks]
        tester = pl.Trainer(callbacks=[TaskCallback(self.session, eval_tasks=names)], **QUIET)
        found = tester.test(self.model, [load(name, test=True) for name in names], verbose=False)
        for name, figures in zip(names, found, strict=True):
            print(f"{name:10}{next(iter(figures.values())):.1%}")


if __name__ == "__main__":
    DigitsCLI(Classifier)
