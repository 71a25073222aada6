"""Fixtures: a file with models, and saved runs."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import fgadahat_hooks as fh

NETS = '''
import torch
from torch import nn

print("this goes to standard error")


class Net(nn.Module):
    """Like torchvision's factories: downloads weights unless they are None."""

    def __init__(self, width=8, weights="DEFAULT"):
        super().__init__()
        if weights is not None:
            raise OSError("no network")
        self.hidden = nn.Linear(6, width)
        self.head = nn.Linear(width, 4)

    def forward(self, x):
        return self.head(torch.relu(self.hidden(x)))


class Words(nn.Module):
    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(5, 8)
        self.hidden = nn.Linear(8, 7)
        self.head = nn.Linear(7, 2)

    def forward(self, ids, mask):
        return self.head(self.hidden((self.table(ids) * mask.unsqueeze(-1)).sum(1)))


class Holder:
    net = Net(weights=None)


def number():
    return 3
'''


@pytest.fixture
def nets(tmp_path: Path) -> Path:
    """Return a file with models."""
    file = tmp_path / "some_nets.py"
    file.write_text(NETS, encoding="utf-8")
    return file


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of runs: `done`, three tasks and a proof; `begun`, during the fourth; `none`, without tasks."""
    folder = tmp_path_factory.mktemp("runs")
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 12), nn.ReLU(), nn.Linear(12, 3))
    x, y = torch.randn(32, 8), torch.randint(0, 3, (32,))
    session = fh.attach(model, fh.preset("hat", tasks=3), x)
    session.save(folder / "none")
    for name in ("birds", 2, "cars [bold]"):
        with session.task(name) as task:
            optimizer = task.protect(torch.optim.Adam(session.parameter_groups(lr=1e-2)))
            for inputs, labels in task.batches([(x, y)] * 5):
                optimizer.zero_grad()
                (F.cross_entropy(model(inputs), labels) + task.regularization()).backward()
                optimizer.step()
    session.verify()
    session.save(folder / "done", extra={"accuracy": [[0.9], [0.8, 0.75], [0.7, None, 1.0]]})
    with session.task("fish"):
        session.save(folder / "begun")
    return folder
