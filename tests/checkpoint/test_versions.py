"""Folders that earlier releases saved can be loaded; `tests/fixtures/saved` has one of each format."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

import fgadahat_hooks as fh
from fgadahat_hooks.checkpoint.manifest import VERSION
from tests.support.saving import TASKS, Net, bits, learn
from tests.support.tree import ROOT

SAVED = ROOT / "tests" / "fixtures" / "saved"
FORMATS = sorted(path.name for path in SAVED.glob("v*") if path.is_dir())


def test_there_is_a_sample_of_the_current_format() -> None:
    assert f"v{VERSION}" in FORMATS


@pytest.mark.parametrize("name", FORMATS)
def test_an_old_folder_is_loaded_and_resumed(name: str, tmp_path: Path) -> None:
    expected = json.loads((SAVED / f"{name}.json").read_text(encoding="utf-8"))
    shutil.copytree(SAVED / name, tmp_path / "run")
    session = fh.load(Net(classes=7), tmp_path / "run")
    assert (list(session.tasks), session.interrupted) == (expected["tasks"], expected["interrupted"])
    assert {name: int(mask.sum()) for name, mask in session.masks("birds").items()} == expected["units used"]
    if name == f"v{VERSION}":
        assert bits(session, spec=False) == expected["bits"]  # later releases may have more options
    session.model.eval()
    with torch.no_grad(), session.use("birds"):
        # Another machine, or another torch, may round the sums of a matrix product differently.
        torch.testing.assert_close(session.model(torch.eye(6)), torch.tensor(expected["logits"]))
    session.detach()
    assert learn(tmp_path / "run").tasks == tuple(task for task, _ in TASKS)
