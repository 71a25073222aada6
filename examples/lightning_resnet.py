"""torchvision's ResNet-18 in a Lightning `Trainer`: scikit-learn's digits as three tasks.

LightningModule and Trainer are ordinary; the library adds callbacks. Prints the accuracy of every task right after
learning it and at the end, and whether a bit of any logit changed.

Run it with `python examples/lightning_resnet.py`. It needs lightning, scikit-learn and torchvision.
"""

from __future__ import annotations

import argparse
import logging
import warnings
from typing import Any

import lightning.pytorch as pl
import torch
from sklearn.datasets import load_digits
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset
from torchvision.models import resnet18

TASKS = {"0 1 2": (0, 1, 2), "3 4 5 6": (3, 4, 5, 6), "7 8 9": (7, 8, 9)}


# ------------------------------------------------------------------ your code, without anything about tasks
class Classifier(pl.LightningModule):
    """Any LightningModule."""

    def __init__(self) -> None:
        """Make the network."""
        super().__init__()
        self.net = resnet18(weights=None)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits `(batch, classes)`."""
        logits: Tensor = self.net(x)
        return logits

    def training_step(self, batch: tuple[Tensor, Tensor], _: int) -> Tensor:
        """Return the loss."""
        return F.cross_entropy(self(batch[0]), batch[1])

    def predict_step(self, batch: tuple[Tensor, Tensor], *_: Any) -> Tensor:
        """Return logits."""
        logits: Tensor = self(batch[0])
        return logits

    def configure_optimizers(self) -> Any:
        """Return AdamW under a one-cycle schedule."""
        optimizer = torch.optim.AdamW(self.parameters(), lr=1e-3, weight_decay=0.05)
        steps = int(self.trainer.estimated_stepping_batches)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=2e-3, total_steps=steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def load(classes: tuple[int, ...]) -> tuple[TensorDataset, TensorDataset]:
    """Return images `(n, 3, 24, 24)` with labels counted within the task, for training and for testing."""
    digits = load_digits()
    target = torch.tensor(digits.target)
    keep = torch.isin(target, torch.tensor(classes))
    x = torch.tensor(digits.images, dtype=torch.float32).unsqueeze(1)[keep] / 16
    x = F.interpolate(x, size=24, mode="bilinear").expand(-1, 3, -1, -1).contiguous()
    y = torch.searchsorted(torch.tensor(classes), target[keep])
    test = torch.arange(len(x)) % 4 == 0
    return TensorDataset(x[~test], y[~test]), TensorDataset(x[test], y[test])


# ------------------------------------------------------------------ task after task
import fgadahat_hooks as fh  # noqa: E402  # separate from your code
from fgadahat_hooks.adapters.lightning import (  # noqa: E402
    GradientAdjustCallback,
    ImportanceCallback,
    SummationCallback,
    TaskCallback,
)


def trainer(callbacks: list[pl.Callback], epochs: int = 1) -> pl.Trainer:
    """Return a Trainer that leaves no files; with a logger it would log capacity, mask use and rates."""
    quiet: dict[str, Any] = dict.fromkeys(
        ("logger", "enable_checkpointing", "enable_model_summary", "enable_progress_bar"), False
    )
    return pl.Trainer(max_epochs=epochs, devices=1, gradient_clip_val=1.0, callbacks=callbacks, **quiet)


def predict(session: fh.Session, module: Classifier, names: list[str]) -> dict[str, Tensor]:
    """Return the logits of the test images of finished tasks: one dataloader a task, each as its own task."""
    loaders = [DataLoader(load(TASKS[name])[1], batch_size=64) for name in names]
    found = trainer([TaskCallback(session, eval_tasks=names)]).predict(module, loaders)
    batches: list[Any] = found if len(names) > 1 else [found]  # type: ignore[assignment]
    return {name: torch.cat(logits) for name, logits in zip(names, batches, strict=True)}


def main() -> None:
    """Learn the tasks one after another."""
    parser = argparse.ArgumentParser(description="Learn tasks of digits with a ResNet-18 and Lightning.")
    parser.add_argument("--tasks", type=int, default=len(TASKS), help="how many tasks")
    parser.add_argument("--epochs", type=int, default=3, help="epochs of each")
    parser.add_argument("--preset", default="hat", choices=["hat", "fg_adahat"], help="hard, or by importance")
    options = parser.parse_args()
    warnings.filterwarnings("ignore", message=".*does not have many workers")
    warnings.filterwarnings("ignore", message=".*treespec", category=FutureWarning)
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)

    pl.seed_everything(0, verbose=False)
    module = Classifier()
    spec = fh.preset(options.preset, tasks=len(TASKS))
    session = fh.attach(module, spec, example_inputs=torch.zeros(2, 3, 24, 24), callbacks=[])

    names, learnt = list(TASKS)[: options.tasks], {}
    for name in names:
        callbacks: list[pl.Callback] = [
            TaskCallback(session, task=name, num_classes=len(TASKS[name])),  # one fit is one task
            ImportanceCallback(session),  # how much each unit matters for the task
            SummationCallback(session),  # ... and for all tasks so far; FG-AdaHAT uses both
            GradientAdjustCallback(session),  # protects earlier tasks
        ]
        loader = DataLoader(load(TASKS[name])[0], batch_size=32, shuffle=True, drop_last=True)
        trainer(callbacks, options.epochs).fit(module, loader)
        learnt.update(predict(session, module, [name]))

    print(f"{'digits':10}{'when learnt':>13}{'at the end':>13}{'same bits':>11}")
    same = True
    for name, after in predict(session, module, names).items():
        labels = load(TASKS[name])[1].tensors[1]
        then, now = (float((logits.argmax(1) == labels).float().mean()) for logits in (learnt[name], after))
        equal = torch.equal(learnt[name], after)
        print(f"{name:10}{then:>13.1%}{now:>13.1%}{'yes' if equal else 'no':>11}")
        same = same and equal
    print("earlier tasks bit-identical:", "yes" if same else "no")


if __name__ == "__main__":
    main()
