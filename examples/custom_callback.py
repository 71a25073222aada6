"""Your own callback: stop a task early, once its hard mask has stopped changing.

Gates are learnt here: while a task is trained, its hard mask switches units on or off. The callback counts the units
that change at each step; the loop queries it after each epoch, and ends the task when hardly any unit has changed. The
counts are part of the session's state, so that they survive `session.save`. Learns three tasks of scikit-learn's
digits.

Run it with `python examples/custom_callback.py` (a few seconds). It needs scikit-learn.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer
from torch.utils.data import DataLoader, TensorDataset

import fgadahat_hooks as fh

TASKS = {"small digits": (0, 1, 2), "middle digits": (3, 4, 5), "large digits": (6, 7, 8, 9)}


# ------------------------------------------------------------------ the callback
class Settled(fh.Callback):
    """Detects when the hard mask of the running task stops changing.

    Args:
        share: Share of all gated units that may still change in the epoch after which a task counts as settled.
    """

    key: ClassVar[str] = "settled"  # the key of its state in a saved session

    def __init__(self, share: float = 0.02) -> None:
        """Start without a task."""
        self.share = share
        self.changes: list[int] = []
        self._mask: Tensor | None = None

    def on_task_start(self, context: fh.TaskContext) -> None:
        """Reset the counts."""
        self.changes = []
        self._mask = self._hard_mask(context)

    def on_after_optimizer_step(self, context: fh.TaskContext, optimizer: Optimizer) -> None:
        """Count the units that this step switched on or off."""
        before, self._mask = self._mask, self._hard_mask(context)
        self.changes.append(0 if before is None else int((before != self._mask).sum()))

    def on_task_end(self, context: fh.TaskContext) -> None:
        """Print the number of units in the mask."""
        masks = context.record.masks
        use = ", ".join(f"{int(mask.sum())} of {mask.numel()} in {layer}" for layer, mask in masks.items())
        print(f"{context.task}: {len(self.changes)} steps; units: {use}")

    def settled(self, steps: int) -> bool:
        """Return whether the last `steps` steps, an epoch, changed hardly any unit."""
        return self._mask is not None and sum(self.changes[-steps:]) <= self.share * self._mask.numel()

    def state_dict(self) -> dict[str, Any]:
        """Return the state to save."""
        return {"changes": self.changes, "mask": self._mask}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Load the saved state."""
        self.changes, self._mask = list(state["changes"]), state["mask"]

    @staticmethod
    def _hard_mask(context: fh.TaskContext) -> Tensor:
        """Return which units are on, all layers concatenated; a unit is on if its embedding is positive."""
        return torch.cat([layer.gate.embedding.detach() > 0 for layer in context.layers.values()])


# ------------------------------------------------------------------ its use
def load(classes: tuple[int, ...]) -> tuple[TensorDataset, TensorDataset]:
    """Return images `(n, 1, 8, 8)` with labels counted within the task, for training and for testing."""
    digits = load_digits()
    target = torch.tensor(digits.target)
    keep = torch.isin(target, torch.tensor(classes))
    x = torch.tensor(digits.images, dtype=torch.float32).unsqueeze(1)[keep] / 16
    y = torch.searchsorted(torch.tensor(classes), target[keep])
    test = torch.arange(len(x)) % 4 == 0
    return TensorDataset(x[~test], y[~test]), TensorDataset(x[test], y[test])


def network() -> nn.Sequential:
    """Return any model; it needs no code for tasks."""
    return nn.Sequential(
        nn.Conv2d(1, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(32, 64, 3, padding=1), nn.BatchNorm2d(64), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(256, 10),
    )  # fmt: skip


def learn(session: fh.Session, watch: Settled, name: str, most_epochs: int) -> int:
    """Learn one task; return how many epochs it took."""
    model, epochs = session.model, 0
    loader = DataLoader(load(TASKS[name])[0], batch_size=32, shuffle=True)
    with session.task(name, num_classes=len(TASKS[name])) as task:
        optimizer = task.protect(torch.optim.AdamW(session.parameter_groups(lr=2e-3, gate_lr=2e-2)))
        while epochs < most_epochs:
            model.train()
            for images, labels in task.batches(loader):
                optimizer.zero_grad()
                (F.cross_entropy(model(images), labels) + task.regularization()).backward()
                optimizer.step()
            epochs += 1
            if watch.settled(len(loader)):  # queried between epochs, when the gates are hardest
                break
    model.eval()
    return epochs


def main(arguments: list[str] | None = None) -> None:
    """Learn the tasks one after another."""
    parser = argparse.ArgumentParser(description="Learn tasks of digits, each until it has settled on its units.")
    parser.add_argument("--epochs", type=int, default=30, help="most epochs of each task")
    parser.add_argument("--share", type=float, default=0.02, help="share of the units that may change in an epoch")
    options = parser.parse_args(arguments)

    torch.manual_seed(0)
    spec = {
        "gates": {"choose": "learn", "annealing_power": 2.0},  # annealed in each epoch: no length is known beforehand
        "regularization": {"budget": 1 / len(TASKS), "factor": 1.5},
    }
    watch, protect = Settled(options.share), fh.GradientAdjustCallback({"mode": "hat"})  # replace the spec's callbacks
    session = fh.attach(network(), spec, example_inputs=torch.zeros(2, 1, 8, 8), callbacks=[protect, watch])
    for name, classes in TASKS.items():
        epochs = learn(session, watch, name, options.epochs)
        images, labels = load(classes)[1].tensors
        with torch.no_grad(), session.use(name):
            right = (session.model(images).argmax(1) == labels).float().mean()
        how = "settled" if epochs < options.epochs else "still changing"
        print(f"  {how} after {epochs} of {options.epochs} epochs, {float(right):.1%} of its test images are right")
    print(session.verify())


if __name__ == "__main__":
    main()
