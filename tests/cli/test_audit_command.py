"""`fgadahat-hooks audit`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import fgadahat_hooks as fh
from fgadahat_hooks.cli.models import make_model
from tests.support.commands import call


@pytest.fixture
def run(nets: Path, tmp_path: Path) -> Path:
    """Return a saved run with a certificate."""
    session = fh.attach(make_model(f"{nets}:Net", {"weights": None}), {}, torch.randn(2, 6))
    with session.task("a") as task:
        task.anneal(1, 1)
    session.certify(torch.randn(4, 6))
    session.save(tmp_path / "run")
    return tmp_path / "run"


def test_a_run_that_is_as_it_was(run: Path, nets: Path) -> None:
    result = call("audit", run, "--model", f"{nets}:Net", "--device", "cpu")
    assert result.status == 0
    assert result.out.startswith("Audit passed: task 'a' has the bits")
    found = json.loads(call("audit", run, "-m", f"{nets}:Net", "--json").out)
    assert (found["tasks"], found["uncertified"], found["outputs"]) == (["a"], [], 1)


def test_a_run_that_has_changed(run: Path, nets: Path) -> None:
    session = fh.load(make_model(f"{nets}:Net", {"weights": None}), run)
    session._sequence.state.record("a").tensors["head.bias"] += 1
    session.save(run)
    result = call("audit", run, "-m", f"{nets}:Net")
    assert result.status == 1
    assert "task 'a': the task's own head.bias" in result.err


def test_a_run_without_a_certificate_does_not_pass(runs: Path, tmp_path: Path) -> None:
    file = tmp_path / "net_of_runs.py"
    layers = "nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 12), nn.ReLU(), nn.Linear(12, 3)"
    file.write_text(f"from torch import nn\n\n\ndef net():\n    return nn.Sequential({layers})\n", encoding="utf-8")
    result = call("audit", runs / "done", "-m", f"{file}:net")
    assert result.status == 1
    assert "There is no certificate" in result.err


def test_a_device_that_is_not_there(run: Path, nets: Path) -> None:
    result = call("audit", run, "-m", f"{nets}:Net", "--device", "nowhere")
    assert result.status == 2
    assert "Expected --device as cpu, cuda, cuda:1 or another that torch has here, but got 'nowhere'" in result.err
