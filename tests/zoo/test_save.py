"""Published models: what was saved is loaded in another process, and every task's logits are the same bits."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch.nn.functional import cross_entropy

import fgadahat_hooks as fh
from tests.support.tree import ROOT
from tests.support.zoo_models import images, labels
from tests.zoo.reload import MODELS, SMALL, TASKS, all_logits, built, logits_of

LARGE = tuple(name for name in MODELS if name not in SMALL)


def learnt(name: str) -> fh.Session:
    """Return a session that has learnt two tasks of different sizes."""
    session = fh.attach(built(name), {"adjustment": {"mode": "hat"}}, images(2))
    for number, task in enumerate(TASKS):
        with session.task(task, num_classes=4 + number) as running:
            optimizer = running.protect(torch.optim.AdamW(session.parameter_groups(lr=1e-3, weight_decay=0.1)))
            session.model.train()
            for x, y in running.batches([(images(4, seed=10 * number + k), labels(4)) for k in range(2)]):
                optimizer.zero_grad()
                (cross_entropy(logits_of(session.model, x), y) + running.regularization()).backward()
                optimizer.step()
    return session


@pytest.mark.parametrize("names", [SMALL, pytest.param(LARGE, marks=pytest.mark.zoo)], ids=["small", "large"])
def test_logits_are_the_same_bits_in_another_process(tmp_path: Path, names: tuple[str, ...]) -> None:
    for library in {name.split()[0] for name in names if " " in name}:
        pytest.importorskip(library)
    expected = {}
    for name in names:
        session = learnt(name)
        session.save(tmp_path / name)
        expected[name] = all_logits(session)
        assert not torch.equal(expected[name]["birds"], expected[name]["cars"][:, :4])
    command = [sys.executable, "-m", "tests.zoo.reload", str(tmp_path), *names]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr
    for name in names:
        found = load_file(tmp_path / f"{name}.safetensors")
        assert set(found) == set(TASKS)
        assert all(torch.equal(found[task], expected[name][task]) for task in TASKS), name
