"""The plain loop: your model and your loop, with a few more lines.

Three tasks of scikit-learn's digits on a small convolutional network, hard HAT, AdamW. Ends with the proof that the
first task's logits are bit-identical to those when it ended.

Run it with `python examples/plain_loop.py` (a few seconds). It needs scikit-learn.
"""

from __future__ import annotations

import argparse

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

import fgadahat_hooks as fh

TASKS = {"small digits": (0, 1, 2), "middle digits": (3, 4, 5), "large digits": (6, 7, 8, 9)}


class Net(nn.Module):
    """Any model; it needs no code for tasks."""

    def __init__(self) -> None:
        """Make two convolutions and a classifier."""
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(32, 64, 3, padding=1), nn.BatchNorm2d(64), nn.ReLU(), nn.MaxPool2d(2),
        )  # fmt: skip
        self.classifier = nn.Sequential(nn.Flatten(), nn.Linear(256, 64), nn.ReLU(), nn.Linear(64, 10))

    def forward(self, x: Tensor) -> Tensor:
        """Return logits."""
        logits: Tensor = self.classifier(self.features(x))
        return logits


def load(classes: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Return images `(n, 1, 8, 8)` and labels counted within the task."""
    digits = load_digits()
    target = torch.tensor(digits.target)
    keep = torch.isin(target, torch.tensor(classes))
    images = torch.tensor(digits.images, dtype=torch.float32).unsqueeze(1)[keep] / 16
    return images, torch.searchsorted(torch.tensor(classes), target[keep])


def main(arguments: list[str] | None = None) -> None:
    """Learn three tasks."""
    parser = argparse.ArgumentParser(description="Learn tasks of digits with a plain loop.")
    parser.add_argument("--epochs", type=int, default=5, help="epochs of each task")
    options = parser.parse_args(arguments)

    torch.manual_seed(0)
    model = Net()
    session = fh.attach(model, fh.preset("hat", tasks=len(TASKS)), example_inputs=torch.zeros(1, 1, 8, 8))
    print(session.plan, end="\n\n")

    first: Tensor | None = None
    for name, classes in TASKS.items():
        x, y = load(classes)
        loader = DataLoader(TensorDataset(x, y), batch_size=64, shuffle=True)
        with session.task(name, num_classes=len(classes)) as task:
            optimizer = torch.optim.AdamW(session.parameter_groups(lr=2e-3, weight_decay=0.05))
            task.protect(optimizer)
            for _ in range(options.epochs):
                model.train()
                for images, labels in task.batches(loader):
                    optimizer.zero_grad()
                    loss = F.cross_entropy(model(images), labels) + task.regularization()
                    loss.backward()
                    optimizer.step()
        model.eval()
        with torch.no_grad(), session.use(name):
            logits = model(x)
        first = logits if first is None else first
        print(f"{name}: accuracy {(logits.argmax(1) == y).float().mean():.1%}, capacity left {session.capacity():.1%}")

    with torch.no_grad(), session.use("small digits"):
        again = model(load(TASKS["small digits"])[0])
    print("logits of the first task bit-identical:", "yes" if first is not None and torch.equal(first, again) else "no")
    print(session.verify())


if __name__ == "__main__":
    main()
