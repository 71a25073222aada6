"""A small network learns three tables in a row, with and without gates.

The tables ship with scikit-learn: iris (4 measurements, three species), wine (13 measurements, three growers) and
breast cancer (30 measurements of cell nuclei, benign or malignant). Each task standardises its own columns and pads
them with zeros to 30. The same network is trained twice, on one table after the other: without and with gates. Prints
the accuracies of both on held-out rows.

Run it with `python examples/tabular_mlp.py` (a few seconds). It needs scikit-learn.
"""

from __future__ import annotations

import argparse

import torch
from sklearn import datasets
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

import fgadahat_hooks as fh

TASKS = {"iris": datasets.load_iris, "wine": datasets.load_wine, "breast cancer": datasets.load_breast_cancer}
COLUMNS = 30


def network(classes: int = 3) -> nn.Sequential:
    """Return any model; it needs no code for tasks."""
    return nn.Sequential(
        nn.Linear(COLUMNS, 64), nn.ReLU(), nn.Dropout(0.1),
        nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, classes),
    )  # fmt: skip


def load(name: str) -> tuple[TensorDataset, TensorDataset]:
    """Return rows `(n, 30)` and labels of a table, for training and for testing; every fourth row is for testing."""
    x, y = (torch.tensor(part) for part in TASKS[name](return_X_y=True))
    test = torch.arange(len(x)) % 4 == 0
    x = ((x - x[~test].mean(0)) / x[~test].std(0)).float()
    x = F.pad(x, (0, COLUMNS - x.shape[1]))
    return TensorDataset(x[~test], y[~test]), TensorDataset(x[test], y[test])


def loader(name: str) -> DataLoader[tuple[Tensor, ...]]:
    """Return the training rows in batches."""
    return DataLoader(load(name)[0], batch_size=32, shuffle=True)


def accuracy(model: nn.Module, name: str) -> float:
    """Return the share of a table's test rows that are right."""
    x, y = load(name)[1].tensors
    model.eval()
    with torch.no_grad():
        return float((model(x).argmax(1) == y).float().mean())


def as_it_is(names: list[str], epochs: int) -> tuple[list[float], list[float]]:
    """Train one table after the other, a head for each; return the accuracies when each was learnt and at the end."""
    model = network()
    heads, learnt, end = {}, [], []
    for name in names:
        model[-1] = heads[name] = nn.Linear(64, len(load(name)[0].tensors[1].unique()))
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.01)
        for _ in range(epochs):
            model.train()
            for x, y in loader(name):
                optimizer.zero_grad()
                F.cross_entropy(model(x), y).backward()
                optimizer.step()
        learnt.append(accuracy(model, name))
    for name in names:
        model[-1] = heads[name]
        end.append(accuracy(model, name))
    return learnt, end


def with_gates(names: list[str], epochs: int) -> tuple[list[float], list[float], fh.Session]:
    """Do the same with hard gates; return the session too."""
    model = network()
    session = fh.attach(model, fh.preset("hat", tasks=len(TASKS)), example_inputs=torch.zeros(2, COLUMNS))
    learnt, end = [], []
    for name in names:
        with session.task(name, num_classes=len(load(name)[0].tensors[1].unique())) as task:
            optimizer = torch.optim.AdamW(session.parameter_groups(lr=1e-2, weight_decay=0.01))
            task.protect(optimizer)
            for _ in range(epochs):
                model.train()
                for x, y in task.batches(loader(name)):
                    optimizer.zero_grad()
                    (F.cross_entropy(model(x), y) + task.regularization()).backward()
                    optimizer.step()
        with session.use(name):
            learnt.append(accuracy(model, name))
    for name in names:
        with session.use(name):
            end.append(accuracy(model, name))
    return learnt, end, session


def main(arguments: list[str] | None = None) -> None:
    """Train both ways and print the table."""
    parser = argparse.ArgumentParser(description="Learn three tables in a row with a small network.")
    parser.add_argument("--epochs", type=int, default=20, help="epochs of each table")
    parser.add_argument("--seeds", type=int, default=3, help="how often to do it all; accuracies are means")
    options = parser.parse_args(arguments)

    names, found = list(TASKS), []
    for seed in range(options.seeds):
        torch.manual_seed(seed)
        plain = as_it_is(names, options.epochs)
        torch.manual_seed(seed)
        *gated, session = with_gates(names, options.epochs)
        used = [float(torch.cat(list(session.masks(name).values())).float().mean()) for name in names]
        found.append(torch.tensor([*plain, *gated, used]))

    print(f"{'':15}{'as it is':^24}{'with gates':^24}{'share of':>12}")
    print(f"{'table':15}{'when learnt':>12}{'at the end':>12}{'when learnt':>12}{'at the end':>12}{'units used':>12}")
    for name, values in zip(names, torch.stack(found).mean(0).T, strict=True):
        print(f"{name:15}" + "".join(f"{float(value):>12.1%}" for value in values))
    print(session.verify())


if __name__ == "__main__":
    main()
