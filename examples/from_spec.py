"""All options in a YAML file: `examples/spec.yaml`, which editors complete and check by its JSON schema.

Reads the file, shows its plan for the model, learns three tasks of scikit-learn's digits, and prints the accuracies at
the end. All mistakes in the file are reported at once, each with its place and the nearest valid name: try a copy of
the file with a few. The first line of the file names its JSON schema, `examples/spec.schema.json`; write your
own, including the measures that you registered, with `json.dumps(fh.json_schema())`.

Run it with `python examples/from_spec.py` (a few seconds). It needs scikit-learn.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

import fgadahat_hooks as fh
from fgadahat_hooks.errors import SpecError

TASKS = {"small digits": (0, 1, 2), "middle digits": (3, 4, 5), "large digits": (6, 7, 8, 9)}
SPEC = Path(__file__).with_name("spec.yaml")


def load(classes: tuple[int, ...]) -> tuple[TensorDataset, TensorDataset]:
    """Return images `(n, 1, 8, 8)` with labels counted within the task, for training and for testing."""
    digits = load_digits()
    target = torch.tensor(digits.target)
    keep = torch.isin(target, torch.tensor(classes))
    x = torch.tensor(digits.images, dtype=torch.float32).unsqueeze(1)[keep] / 16
    y = torch.searchsorted(torch.tensor(classes), target[keep])
    test = torch.arange(len(x)) % 4 == 0
    return TensorDataset(x[~test], y[~test]), TensorDataset(x[test], y[test])


def network() -> nn.Module:
    """Return any model; it needs no code for tasks."""
    return nn.Sequential(
        nn.Conv2d(1, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(32, 64, 3, padding=1), nn.BatchNorm2d(64), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(256, 10),
    )  # fmt: skip


def learn(session: fh.Session, name: str, epochs: int) -> None:
    """Learn one task."""
    loader = DataLoader(load(TASKS[name])[0], batch_size=32, shuffle=True)
    with session.task(name, num_classes=len(TASKS[name])) as task:
        optimizer = task.protect(torch.optim.AdamW(session.parameter_groups(lr=2e-3)))
        for _ in range(epochs):
            session.model.train()
            for images, labels in task.batches(loader):
                optimizer.zero_grad()
                (F.cross_entropy(session.model(images), labels) + task.regularization()).backward()
                optimizer.step()
    session.model.eval()


def right(session: fh.Session, name: str) -> float:
    """Return the share of a task's test images that are right."""
    images, labels = load(TASKS[name])[1].tensors
    with torch.no_grad(), session.use(name):
        return float((session.model(images).argmax(1) == labels).float().mean())


def main(arguments: list[str] | None = None) -> int:
    """Learn as the file says; return 0, or 2 if the file has mistakes."""
    parser = argparse.ArgumentParser(description="Learn tasks of digits by a spec in a file.")
    parser.add_argument("--spec", type=Path, default=SPEC, help="a .yaml or .json file")
    parser.add_argument("--epochs", type=int, default=5, help="epochs of each task")
    options = parser.parse_args(arguments)

    try:
        spec = fh.load_spec(options.spec)
    except SpecError as error:
        print(error, file=sys.stderr)
        return 2

    torch.manual_seed(0)
    model, example = network(), torch.zeros(2, 1, 8, 8)
    print(fh.plan(model, spec, example), end="\n\n")  # changes nothing
    session = fh.attach(model, spec, example)
    learnt = {}
    for name in TASKS:
        learn(session, name, options.epochs)
        learnt[name] = right(session, name)
    for name, then in learnt.items():
        print(f"{name:14} when learnt {then:>7.1%}   at the end {right(session, name):>7.1%}")
    print(f"capacity left {session.capacity():.1%}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
