"""torchvision's ResNet-18 in a plain loop with a learning-rate schedule, gradient clipping and a test set.

scikit-learn's digits come as five tasks of two classes each. The loop is ordinary; the lines that the library adds are
marked. Prints the accuracy on every task after each task, one row a task, and the proof that no later task can change a
bit.

Run it with `python examples/plain_resnet.py` (half a minute). It needs scikit-learn and torchvision.
"""

from __future__ import annotations

import argparse
from typing import Any

import torch
from sklearn.datasets import load_digits
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset
from torchvision.models import resnet18

import fgadahat_hooks as fh
from fgadahat_hooks.metrics import AccuracyMatrix

TASKS = {f"{a} or {a + 1}": (a, a + 1) for a in range(0, 10, 2)}


def load(classes: tuple[int, ...]) -> tuple[TensorDataset, TensorDataset]:
    """Return images `(n, 3, 24, 24)` with labels counted within the task, for training and for testing."""
    digits = load_digits()
    target = torch.tensor(digits.target)
    keep = torch.isin(target, torch.tensor(classes))
    x = torch.tensor(digits.images, dtype=torch.float32).unsqueeze(1)[keep] / 16
    x = F.interpolate((x - 0.3) / 0.4, size=24, mode="bilinear").expand(-1, 3, -1, -1).contiguous()
    y = torch.searchsorted(torch.tensor(classes), target[keep])
    test = torch.arange(len(x)) % 4 == 0
    return TensorDataset(x[~test], y[~test]), TensorDataset(x[test], y[test])


def learn(session: fh.Session, name: str, epochs: int) -> None:
    """Learn one task; without the marked lines this is an ordinary loop."""
    model = session.model
    loader: DataLoader[Any] = DataLoader(load(TASKS[name])[0], batch_size=32, shuffle=True, drop_last=True)
    with session.task(name, num_classes=len(TASKS[name])) as task:  # leaving the block ends the task
        optimizer = torch.optim.AdamW(session.parameter_groups(lr=1e-3, weight_decay=0.05))  # yours, and the gates'
        task.protect(optimizer)  # from now on its steps protect earlier tasks
        scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=epochs * len(loader))
        for _ in range(epochs):
            model.train()
            for images, labels in task.batches(loader):  # tells the gates where the loop is
                optimizer.zero_grad()
                loss = F.cross_entropy(model(images), labels) + task.regularization()  # 0 unless gates are learnt
                loss.backward()
                task.gradients_ready(optimizer)  # only if you clip: importance is measured on unclipped gradients
                torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
                optimizer.step()
                scheduler.step()


def main(arguments: list[str] | None = None) -> None:
    """Learn the tasks one after another."""
    parser = argparse.ArgumentParser(description="Learn tasks of digits with a ResNet-18 in a plain loop.")
    parser.add_argument("--tasks", type=int, default=len(TASKS), help="how many tasks")
    parser.add_argument("--epochs", type=int, default=3, help="epochs of each")
    parser.add_argument("--preset", default="hat", choices=["hat", "fg_adahat"], help="hard, or by importance")
    options = parser.parse_args(arguments)

    torch.manual_seed(0)
    model = resnet18(weights=None)  # or your weights; the model needs no code for tasks
    session = fh.attach(model, fh.preset(options.preset, tasks=len(TASKS)), example_inputs=torch.zeros(2, 3, 24, 24))

    names = list(TASKS)[: options.tasks]
    accuracy = AccuracyMatrix(names)
    print("accuracy".ljust(16) + "".join(f"{name:>9}" for name in names) + "   units used")
    for number, learnt in enumerate(names, start=1):
        learn(session, learnt, options.epochs)
        model.eval()
        for name in names[:number]:
            images, labels = load(TASKS[name])[1].tensors
            with torch.no_grad(), session.use(name):  # the model as it was when this task ended
                accuracy.update(model(images), labels, learnt=learnt, task=name)
        row = accuracy.compute()[number - 1, :number]
        cells = "".join(f"{float(value):>9.1%}" for value in row)
        use = torch.cat(list(session.cumulative_mask.values())).float().mean()  # by any task so far
        print(f"after {learnt:10}{cells.ljust(9 * len(names))}{float(use):>13.1%}")
    print(session.verify())


if __name__ == "__main__":
    main()
