"""The share of a task's signal that comes from units of earlier tasks."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import fgadahat_hooks as fh
from fgadahat_hooks.summary import read_summary
from tests.reference.reuse import reuse as reference

X, Y = torch.randn(16, 6, generator=torch.Generator().manual_seed(1)), torch.arange(16) % 3


def mlp() -> nn.Sequential:
    return nn.Sequential(nn.Linear(6, 20), nn.ReLU(), nn.Linear(20, 12), nn.ReLU(), nn.Linear(12, 3))


def cnn() -> nn.Sequential:
    return nn.Sequential(
        nn.Unflatten(1, (1, 2, 3)), nn.Conv2d(1, 24, 1), nn.ReLU(), nn.Conv2d(24, 24, 1), nn.ReLU(),
        nn.Flatten(), nn.Linear(144, 3),
    )  # fmt: skip


SHARE = fh.preset("hat", tasks=3)
PLAIN = SHARE.model_copy(update={"gates": SHARE.gates.model_copy(update={"gains": "none"})})


def learnt(model: nn.Module, tasks: str = "ab", spec: fh.AttachSpec = SHARE) -> fh.Session:
    torch.manual_seed(0)
    session = fh.attach(model, spec, X[:2])
    for name in tasks:
        with session.task(name) as task:
            optimizer = task.protect(torch.optim.AdamW(session.parameter_groups(lr=1e-2)))
            for x, y in task.batches([(X, Y)] * 4):
                optimizer.zero_grad()
                F.cross_entropy(session.model(x), y).backward()
                optimizer.step()
    session.model.eval()
    return session


def test_shares_are_those_of_a_loop_over_weights_and_samples() -> None:
    session = learnt(mlp())
    one, two = session.masks("a"), session.masks("b")
    with torch.no_grad(), session.use("b"):
        hidden = session.model[:2](X)  # type: ignore[index]
        last = session.model[:4](X)  # type: ignore[index]
        for layer, inputs, below, rows in (
            ("2", hidden, "0", two["2"] & ~one["2"]),
            ("4", last, "2", torch.ones(3, dtype=torch.bool)),
        ):
            weight = session.model.get_submodule(layer).get_parameter("weight")
            expected = reference(
                weight.tolist(), inputs.tolist(), rows.tolist(), two[below].tolist(), one[below].tolist()
            )
            assert session.reuse("b")[layer] == pytest.approx(expected, rel=1e-5)
            assert 0 < expected < 1


@pytest.mark.parametrize("model", [mlp, cnn])
def test_a_first_task_reuses_nothing_and_later_ones_more(model: type) -> None:
    session = learnt(model(), "abc", PLAIN)  # gains bring old units to the size of new ones
    assert set(session.reuse("a").values()) == {0.0}
    assert all(0 < share < 1 for share in session.reuse("b").values())
    mean = {name: sum(session.reuse(name).values()) / len(session.reuse(name)) for name in "abc"}
    assert mean["a"] < mean["b"] < mean["c"]


def test_shares_are_saved_and_shown(tmp_path: Path) -> None:
    session = learnt(mlp())
    session.save(tmp_path / "run")
    assert fh.load(mlp(), tmp_path / "run").reuse("b") == session.reuse("b")
    assert read_summary(tmp_path / "run").reuse["b"] == session.reuse("b")
    assert "Signal from earlier tasks&#39; units" in fh.report(session, tmp_path / "report.html").read_text()
