"""Every command in docs/cli.md runs."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from pathlib import Path

import pytest

from tests.support.commands import call
from tests.support.tree import ROOT

PAGE = ROOT / "docs" / "cli.md"
NETS = """
from torch import nn


class Net(nn.Sequential):
    def __init__(self, width):
        super().__init__(nn.Linear(784, width), nn.ReLU(), nn.Linear(width, 10))


class Encoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.table, self.hidden, self.head = nn.Embedding(100, 8), nn.Linear(8, 8), nn.Linear(8, 2)

    def forward(self, ids, mask):
        return self.head(self.hidden((self.table(ids) * mask.unsqueeze(-1)).mean(1)).relu())
"""
OLD = {
    "_target_": "clarena.cl_algorithms.HAT",
    "adjustment_mode": "hat",
    "s_max": 400,
    "clamp_threshold": 50,
    "mask_sparsity_reg_factor": 0.1,
}


def commands() -> list[str]:
    """Return the commands in the page's shell blocks."""
    blocks = re.findall(r"^```sh\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    return [line for block in blocks for line in block.splitlines() if line.startswith("fgadahat-hooks ")]


@pytest.fixture(scope="module")
def page_folder(runs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the files that the page mentions."""
    folder = tmp_path_factory.mktemp("page")
    shutil.copytree(runs / "done", folder / "run")
    (folder / "nets.py").write_text(NETS, encoding="utf-8")
    (folder / "spec.yaml").write_text("{}", encoding="utf-8")
    (folder / "other.json").write_text("{}", encoding="utf-8")
    (folder / "experiment.yaml").write_text(json.dumps({"cl_algorithm": OLD}), encoding="utf-8")
    (folder / "accuracy.csv").write_text("0.9\n0.8,0.7\n0.7,0.6,0.5\n", encoding="utf-8")
    return folder


@pytest.mark.parametrize("command", commands())
def test_it_runs(command: str, page_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(page_folder)
    result = call(*shlex.split(command)[1:])
    assert result.status == 0, result.err


def test_the_page_shows_every_command() -> None:
    shown = {shlex.split(command)[1] for command in commands()}
    assert shown == {"convert", "inspect", "plan", "report", "schema", "validate"}
