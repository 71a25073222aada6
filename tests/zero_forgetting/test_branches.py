"""Models whose execution path depends on their inputs: a path that no trace has seen is never silently wrong."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import fgadahat_hooks as fh
from fgadahat_hooks.errors import StateMismatchError
from tests.support.branch_models import (
    MODELS,
    Base,
    EarlyExit,
    SharedNorm,
    SkippedLayer,
    SkippedNorm,
    attached,
    batch,
    learn,
    task_logits,
)


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("seen", ["in training", "in evaluation"])
def test_outputs_that_were_ever_computed_keep_their_bits(kind: type[Base], seen: str) -> None:
    session = attached(kind())
    learn(session, "a", (1, -1) if seen == "in training" else (1,))
    before = [task_logits(session, "a", sign) for sign in (1, -1)]
    learn(session, "b", (1, -1))
    assert all(torch.equal(old, task_logits(session, "a", sign)) for old, sign in zip(before, (1, -1), strict=True))
    learn(session, "c", (-1,))
    assert all(torch.equal(old, task_logits(session, "a", sign)) for old, sign in zip(before, (1, -1), strict=True))
    assert session.verify(batch(1)).leaks == session.verify(batch(-1)).leaks == {}


@pytest.mark.parametrize("kind", MODELS)
def test_a_path_that_only_training_took_is_protected_from_the_next_task(kind: type[Base]) -> None:
    """Nothing is evaluated between the tasks, so the logits at the end of the first are those of a copy."""
    ended = []
    for tasks in ("a", "ab"):
        torch.manual_seed(0)
        session = attached(kind())
        for task in tasks:
            learn(session, task, (1, -1))
        ended.append(task_logits(session, "a", -1))
    assert torch.equal(*ended)


@pytest.mark.parametrize("kind", [k for k in MODELS if k not in (SharedNorm, EarlyExit)])
def test_without_the_watch_tasks_would_leak(kind: type[Base], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fgadahat_hooks.tasks.branches.BranchWatch.begin", lambda *_: None)
    session = attached(kind())
    learn(session, "a", (1, -1))
    before = task_logits(session, "a", -1)
    learn(session, "b", (1, -1))
    learn(session, "c", (-1,))
    assert not torch.equal(before, task_logits(session, "a", -1))


def test_a_restored_session_knows_the_paths(tmp_path: Path) -> None:
    session = attached(SkippedLayer())
    learn(session, "a", (1, -1))
    before = task_logits(session, "a", -1)
    session.save(tmp_path / "run")
    loaded = fh.load(SkippedLayer(), tmp_path / "run")
    for name, inputs in session.graph.inputs.items():
        assert torch.equal(inputs.unit, loaded.graph.inputs[name].unit)
        assert torch.equal(inputs.live, loaded.graph.inputs[name].live)
    learn(loaded, "b", (1,))  # the other path is not taken again
    assert torch.equal(before, task_logits(loaded, "a", -1))
    other = attached(SkippedLayer())
    other.load_state_dict(session.state_dict())
    assert torch.equal(other.graph.inputs["b"].unit, session.graph.inputs["b"].unit)


def test_whole_layers_are_saved_too(tmp_path: Path) -> None:
    session = attached(SkippedNorm())
    learn(session, "a", (1, -1))
    session.save(tmp_path / "run")
    assert fh.load(SkippedNorm(), tmp_path / "run").graph.layers["stem"].mixed_weight


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda paths: paths["inputs"]["b"].update(unit=paths["inputs"]["b"]["unit"] + 10**6), "inputs of layer 'b'"),
        (lambda paths: paths["inputs"]["b"].update(live=paths["inputs"]["b"]["live"][:-1]), "inputs of layer 'b'"),
        (
            lambda paths: paths["inputs"]["b"].update(feature=paths["inputs"]["b"]["feature"].float()),
            "inputs of layer 'b'",
        ),
        (lambda paths: paths["inputs"]["b"].pop("unit"), "unit"),
        (lambda paths: paths["whole"].append("nobody"), "'nobody' of the unit graph has no gate"),
    ],
)
def test_a_saved_graph_that_does_not_fit_is_refused(damage: Callable[[Any], object], words: str) -> None:
    session = attached(SkippedLayer())
    learn(session, "a", (1, -1), steps=1)
    state = copy.deepcopy(session.state_dict())
    damage(state["ways"])
    with pytest.raises(StateMismatchError, match=words):
        attached(SkippedLayer()).load_state_dict(state)
