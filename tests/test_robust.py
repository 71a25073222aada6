"""The grid of `make robust`: what it measures, what it keeps, what its page says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from benchmarks.robust import store
from benchmarks.robust.cells import AGAIN, LEARNT, SHARE, SPECS, TASKS, Cell, cells
from benchmarks.robust.data import Data
from benchmarks.robust.kinds import KINDS, available
from benchmarks.robust.learn import alone, build, in_a_row
from benchmarks.robust.page import page
from benchmarks.robust.rows import Found, collect
from benchmarks.robust.store import ALONE, Run, compute
from benchmarks.robust.text import VOCABULARY, packages
from fgadahat_hooks.spec.attach_spec import to_spec
from fgadahat_hooks.spec.presets import preset

TINY = Cell("mlp, digits", "fresh", "adamw", 5e-3, 1, 7)


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "FOLDER", tmp_path)


def test_each_run_is_in_the_grid_once() -> None:
    every = list(cells(400))
    assert len(set(every)) == len(every)
    assert {cell.kind for cell in every} == set(KINDS)
    assert {cell.keeps_optimizer() for cell in every if cell.optimizer == "adamw"} == {False, True}


@pytest.mark.parametrize("name", SPECS)
def test_specs_are_valid(name: str) -> None:
    assert to_spec(SPECS[name]).adjustment.mode == "hat"
    assert "tasks" not in LEARNT["gates"]


def test_by_share_is_the_preset() -> None:
    assert to_spec(SHARE) == preset("hat", tasks=TASKS)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if available(kind)])
def test_samples_fit_the_model(kind: str) -> None:
    subject = KINDS[kind]
    data = subject.task(TASKS - 1)
    assert set(data.y.tolist()) == set(data.y_test.tolist()) == set(range(subject.classes))
    model = subject.model(subject.classes).eval()
    assert model(data.x[:2]).shape == (2, subject.classes)


def test_text_is_balanced_and_within_the_vocabulary() -> None:
    data = packages(0)
    assert data.y.double().mean() == data.y_test.double().mean() == 0.5
    assert int(data.x.max()) < VOCABULARY


def test_held_out_samples_come_from_the_training_samples() -> None:
    data = Data(torch.arange(10), torch.arange(10), torch.arange(3), torch.arange(3)).held_out()
    assert (data.x.tolist(), data.x_test.tolist()) == (list(range(8)), [8, 9])


def test_a_pretrained_start_differs_in_the_head_alone() -> None:
    first, second = (build(Cell("cnn, digits", "pretrained", "adamw", 1e-3, 1, 7), seed) for seed in (1, 2))
    same = [torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True)]
    assert same == [True] * (len(same) - 2) + [False, False]


def test_a_cell_is_learnt_kept_and_written() -> None:
    for how in (ALONE, *TINY.specs()):
        compute(Run(TINY, how), held_out=False)
    found = collect([TINY], held_out=False)
    assert (found.runs, found.missing, found.failed) == (4, [], [])
    assert {row.spec for row in found.rows} == {"learnt masks", "by share", AGAIN}
    first, second = (alone(TINY, held_out=False, first=first).accuracies for first in (0, 50))
    assert [row.in_a_row for row in found.rows if row.spec == AGAIN] == second != first
    text = page(found)
    assert "| mlp, digits | gap " in text
    assert "{" not in text


def test_no_bit_is_lost_with_any_optimizer() -> None:
    cell = TINY._replace(optimizer="sgd", lr=0.1, seed=8)
    assert len(alone(cell, held_out=True).accuracies) == TASKS
    for each in (cell, TINY, TINY._replace(seed=8)):
        assert in_a_row(each, SHARE, held_out=True).error == ""


def test_a_run_that_fails_is_kept(tmp_path: Path) -> None:
    broken = TINY._replace(optimizer="sgd", lr=1e30)
    compute(Run(broken, "by share"), held_out=False)
    (file,) = tmp_path.glob("*.json")
    assert "NonFinite" in json.loads(file.read_text())["error"]
    found = collect([broken], held_out=False)
    assert len(found.failed) == 1
    assert "NonFinite" in page(Found([], found.failed, 1, []))
