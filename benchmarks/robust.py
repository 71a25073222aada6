"""Do small models learn five tasks in a row nearly as well as each task alone?

    python -m benchmarks.robust                 # minutes; continues where it was
    python -m benchmarks.robust --seeds 400 401 --only cnn

Every model learns five tasks of scikit-learn's digits with AdamW, three learning rates and one or three epochs: in a
row under each spec, and each task alone in a fresh copy. A task counts if the model reaches chance + 20 points alone.
Results are kept in `.robust/`, a file a run; the table has the mean gap to learning alone, in points, and the share of
tasks that end within 10 points of chance (5 with ten classes).
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional as F

import fgadahat_hooks as fh

TASKS = 5
RATES, EPOCHS = (1e-4, 1e-3, 5e-3), (1, 3)
FOLDER = Path(".robust")


class Data(NamedTuple):
    """Training and test samples of one task."""

    x: Tensor
    y: Tensor
    x_test: Tensor
    y_test: Tensor


class Subject(NamedTuple):
    """A kind of model, the tasks that it learns, and their number of classes."""

    model: Callable[[int], nn.Module]
    task: Callable[[int], Data]
    classes: int


def digits() -> tuple[Tensor, Tensor]:
    """Return images `(n, 1, 8, 8)` in [-1, 1], and labels."""
    found = load_digits()
    return torch.tensor(found.images, dtype=torch.float32)[:, None] / 8 - 1, torch.tensor(found.target)


def pair(number: int) -> Data:
    """Return two classes of digits, shuffled."""
    images, labels = digits()
    rows = ((labels == 2 * number) | (labels == 2 * number + 1)).nonzero().flatten()
    rows = rows[torch.randperm(len(rows), generator=torch.Generator().manual_seed(number))]
    x, y = images[rows], labels[rows] - 2 * number
    return Data(x[:270], y[:270], x[270:], y[270:])


def permuted(number: int) -> Data:
    """Return all digits with their pixels in another order."""
    images, labels = digits()
    rows = torch.randperm(len(labels), generator=torch.Generator().manual_seed(99))
    pixels = torch.randperm(64, generator=torch.Generator().manual_seed(number))
    x, y = images.flatten(1)[rows][:, pixels], labels[rows]
    return Data(x[:1200], y[:1200], x[1200:], y[1200:])


def mlp(classes: int) -> nn.Module:
    """Return a multilayer perceptron of two hidden layers."""
    layers = [nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, classes)]
    return nn.Sequential(nn.Flatten(), *layers)


def cnn(classes: int, norms: bool = False) -> nn.Module:
    """Return a small convolutional network, with BatchNorm behind each convolution if asked for."""
    between = [[nn.BatchNorm2d(width)] if norms else [] for width in (16, 32)]
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), *between[0], nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1), *between[1], nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, classes),
    )  # fmt: skip


SUBJECTS = {
    "mlp": Subject(mlp, pair, 2),
    "mlp, permuted": Subject(mlp, permuted, 10),
    "cnn": Subject(cnn, pair, 2),
    "cnn, norms": Subject(lambda classes: cnn(classes, norms=True), pair, 2),
}
SHARE = {
    "gates": {"choose": "share", "tasks": TASKS},
    "regularization": {"factor": 0.0},
    "plasticity": {"rescale": True, "learning_rates": "by_share", "norm_statistics": "measured"},
}
SPECS = {"preset hat": fh.preset("hat", tasks=TASKS), "by share": fh.AttachSpec(**SHARE)}


def batches(data: Data, size: int = 32) -> list[tuple[Tensor, Tensor]]:
    """Return one epoch of batches in random order."""
    return [(data.x[rows], data.y[rows]) for rows in torch.randperm(len(data.y)).split(size)]


def accuracy(model: nn.Module, data: Data) -> float:
    """Return the share of test samples that are classified right."""
    model.eval()
    with torch.no_grad():
        return float((model(data.x_test).argmax(1) == data.y_test).double().mean())


def alone(subject: Subject, seed: int, lr: float, epochs: int) -> list[float]:
    """Train a fresh model on each task; return the accuracies."""
    found = []
    for number in range(TASKS):
        torch.manual_seed(100 * seed + number)
        model, data = subject.model(subject.classes), subject.task(number)
        optimizer = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=0.05)
        model.train()
        for _ in range(epochs):
            for x, y in batches(data):
                optimizer.zero_grad()
                F.cross_entropy(model(x), y).backward()
                optimizer.step()
        found.append(accuracy(model, data))
    return found


def in_a_row(subject: Subject, seed: int, lr: float, epochs: int, spec: fh.AttachSpec) -> list[float]:
    """Train one model on all tasks in a row; return the accuracies, and fail if a finished task changes by a bit."""
    torch.manual_seed(100 * seed)
    model = subject.model(subject.classes)
    session = fh.attach(model, spec, subject.task(0).x[:2])
    found, before = [], {}
    for number in range(TASKS):
        data = subject.task(number)
        with session.task(number) as task:
            optimizer = task.protect(torch.optim.AdamW(session.parameter_groups(lr=lr, weight_decay=0.05)))
            model.train()
            for _ in range(epochs):
                for x, y in task.batches(batches(data)):
                    optimizer.zero_grad()
                    (F.cross_entropy(model(x), y) + task.regularization()).backward()
                    optimizer.step()
        with session.use(number):
            found.append(accuracy(model, data))
        before[number] = logits(session, number, data)
    assert all(torch.equal(logits(session, n, subject.task(n)), value) for n, value in before.items())
    return found


def logits(session: fh.Session, number: int, data: Data) -> Tensor:
    """Return the outputs of a finished task on its test samples."""
    session.model.eval()
    with torch.no_grad(), session.use(number):
        found: Tensor = session.model(data.x_test)
    return found


def kept(name: str, compute: Callable[[], list[float]]) -> list[float]:
    """Return what an earlier run found, or compute and keep it."""
    file = FOLDER / f"{name.replace(' ', '_').replace(',', '')}.json"
    if not file.exists():
        FOLDER.mkdir(exist_ok=True)
        file.write_text(json.dumps(compute()), encoding="utf-8")
    found: list[float] = json.loads(file.read_text(encoding="utf-8"))
    return found


class Row(NamedTuple):
    """One task in one cell: its gap to learning alone, in points, and whether it ended at chance."""

    spec: str
    kind: str
    cell: str
    gap: float
    at_chance: bool


def rows(kinds: list[str], seeds: list[int]) -> Iterator[Row]:
    """Give the results of all cells."""
    for kind, lr, epochs, seed in product(kinds, RATES, EPOCHS, seeds):
        subject, cell = SUBJECTS[kind], f"{lr:g}, {epochs}"
        best = kept(f"alone {kind} {lr} {epochs} {seed}", partial(alone, subject, seed, lr, epochs))
        for name, spec in SPECS.items():
            found = kept(f"{name} {kind} {lr} {epochs} {seed}", partial(in_a_row, subject, seed, lr, epochs, spec))
            chance = 1 / subject.classes
            near = 0.1 if subject.classes < 10 else 0.05
            for a, b in zip(best, found, strict=True):
                if a >= chance + 0.2:
                    yield Row(name, kind, cell, 100 * (a - b), b < chance + near)


def table(found: list[Row]) -> str:
    """Return the results as a Markdown table: one line a group of cells, one column a spec."""
    groups: list[tuple[str, Any]] = [("all", lambda row: True)]
    groups += [(kind, lambda row, kind=kind: row.kind == kind) for kind in dict.fromkeys(row.kind for row in found)]
    cells = dict.fromkeys(row.cell for row in found)
    groups += [(f"lr, epochs: {cell}", lambda row, cell=cell: row.cell == cell) for cell in cells]
    lines = ["| | " + " | ".join(SPECS) + " |", "|---" * (len(SPECS) + 1) + "|"]
    for title, belongs in groups:
        values = [summary([row for row in found if row.spec == spec and belongs(row)]) for spec in SPECS]
        lines.append(f"| {title} | " + " | ".join(values) + " |")
    return "\n".join(lines)


def summary(found: list[Row]) -> str:
    """Return mean gap, share at chance and number of tasks."""
    if not found:
        return "-"
    at_chance = sum(row.at_chance for row in found) / len(found)
    return f"gap {sum(row.gap for row in found) / len(found):.1f}, at chance {at_chance:.1%} of {len(found)}"


def main() -> None:
    """Run the cells that are missing, and print the table."""
    parser = argparse.ArgumentParser(description="Tasks in a row against tasks alone, on small models.")
    parser.add_argument("--only", nargs="*", default=list(SUBJECTS), choices=list(SUBJECTS), help="kinds of models")
    parser.add_argument("--seeds", nargs="*", type=int, default=[400, 401], help="seeds of models and batches")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    print(table(list(rows(asked.only, asked.seeds))))


if __name__ == "__main__":
    main()
