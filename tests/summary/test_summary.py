"""The summary of a run is the same from the session and from its folder, and agrees with the session."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import fgadahat_hooks as fh
from fgadahat_hooks.checkpoint.manifest import parse
from fgadahat_hooks.errors import BadCallError, CheckpointError, DamagedCheckpointError, NoTaskError
from fgadahat_hooks.metrics import AccuracyMatrix, CumulativeMaskUse, MaskOverlap
from fgadahat_hooks.summary.summary import RunSummary, read_summary, summarize
from tests.support.tree import ROOT

NAN = float("nan")
ROWS = [[0.9], [0.8, 0.75], [0.7, None, 1.0]]


def network() -> nn.Sequential:
    return nn.Sequential(nn.Linear(8, 24), nn.ReLU(), nn.Linear(24, 16), nn.ReLU(), nn.Linear(16, 3))


def learn(session: fh.Session, name: Any) -> None:
    with session.task(name) as task:
        optimizer = task.protect(torch.optim.Adam(session.parameter_groups(lr=1e-2)))
        for x, y in task.batches([(torch.randn(16, 8), torch.randint(0, 3, (16,))) for _ in range(5)]):
            optimizer.zero_grad()
            (F.cross_entropy(session.model(x), y) + task.regularization()).backward()
            optimizer.step()


def learnt(spec: Any, names: tuple[Any, ...] = ("a", "b", 3), **more: Any) -> tuple[fh.Session, list[float]]:
    """Return a session, and its capacity when each task had ended."""
    torch.manual_seed(0)
    session = fh.attach(network(), spec, example_inputs=torch.randn(2, 8), **more)
    capacities = []
    for name in names:
        learn(session, name)
        capacities.append(session.capacity())
    return session, capacities


def differing(one: RunSummary, other: RunSummary) -> list[str]:
    """List the fields that differ."""
    return [f.name for f in fields(RunSummary) if not alike(getattr(one, f.name), getattr(other, f.name))]


def alike(one: Any, other: Any) -> bool:
    if isinstance(one, Tensor):
        return bool(torch.allclose(one, other, rtol=0, atol=0, equal_nan=True))
    if isinstance(one, dict) and one:
        return list(one) == list(other) and all(alike(one[key], other[key]) for key in one)
    return bool(one == other)


@pytest.mark.parametrize("preset", ["hat", "adahat", "fg_adahat"])
def test_session_and_folder_give_the_same_summary(preset: str, tmp_path: Path) -> None:
    session, capacities = learnt(fh.preset(preset, tasks=3))
    session.verify()
    session.save(tmp_path, extra={"accuracy": ROWS, "epoch": 3})
    live, read = summarize(session, ROWS), read_summary(tmp_path)
    assert differing(live, read) == []
    assert live.tasks == ("a", "b", 3)
    assert list(live.capacity.values()) == capacities
    assert live.rates[3] == session.mean_rates()
    assert str(live.plan) == str(session.plan)
    assert live.verified is not None
    assert live.verified.leaks == {}
    assert live.interrupted is None


def test_unit_use_and_overlap_equal_the_metrics() -> None:
    session, _ = learnt(fh.preset("hat", tasks=3))
    summary = summarize(session)
    overlap, use = MaskOverlap(), CumulativeMaskUse()
    overlap.update(session)
    use.update(session)
    torch.testing.assert_close(summary.overlap(), overlap.compute().double(), rtol=1e-6, atol=0, equal_nan=True)
    torch.testing.assert_close(torch.tensor(summary.use_after()), use.compute().float())
    assert summary.unit_use() == session.unit_use()


def test_a_run_without_tasks(tmp_path: Path) -> None:
    session, _ = learnt(fh.preset("hat", tasks=3), ())
    session.save(tmp_path)
    for summary in (summarize(session), read_summary(tmp_path)):
        assert summary.tasks == ()
        assert summary.overlap().shape == (0, 0)
        assert summary.use_after() == ()


def test_in_the_middle_of_a_task(tmp_path: Path) -> None:
    session, capacities = learnt(fh.preset("hat", tasks=3), ("a",))
    with session.task("b") as task:
        optimizer = task.protect(torch.optim.SGD(session.parameter_groups(lr=0.1)))
        for x, y in task.batches([(torch.randn(4, 8), torch.randint(0, 3, (4,)))]):
            (F.cross_entropy(session.model(x), y) + task.regularization()).backward()
            optimizer.step()
            live = summarize(session)
            session.save(tmp_path)
    for summary in (live, read_summary(tmp_path)):
        assert summary.interrupted == "b"
        assert list(summary.capacity.values()) == capacities


def test_a_session_without_adjustment_has_all_of_its_capacity(tmp_path: Path) -> None:
    session, _ = learnt(fh.preset("hat", tasks=3), ("a", "b"), callbacks=[])
    session.save(tmp_path)
    assert read_summary(tmp_path).capacity == {"a": 1.0, "b": 1.0}


def test_without_a_summation_callback_only_the_last_capacity_is_known() -> None:
    spec = fh.preset("fg_adahat", tasks=3)
    session, capacities = learnt(spec, ("a", "b"))
    state = session.state_dict()
    alone = fh.attach(network(), spec, torch.randn(2, 8), callbacks=[fh.GradientAdjustCallback(spec.adjustment)])
    alone.load_state_dict(state)
    assert summarize(alone).capacity == {"a": None, "b": capacities[1]}


def test_the_capacity_of_a_task_learnt_again_is_computed_again() -> None:
    session, _ = learnt(fh.preset("hat", tasks=3), ("a", "b"))
    before = summarize(session)
    session.forget("b", dry_run=False)
    assert summarize(session).capacity == {"a": before.capacity["a"]}
    torch.manual_seed(5)
    learn(session, "b")
    after = summarize(session)
    assert after.capacity["b"] == session.capacity()
    assert after.rates["b"] == session.mean_rates()


def test_a_summary_draws_no_random_numbers(tmp_path: Path) -> None:
    session, _ = learnt({"version": 1, "adjustment": {"mode": "hat_random"}}, ("a", "b"))
    state = torch.get_rng_state()
    session.save(tmp_path)
    summarize(session)
    assert torch.equal(torch.get_rng_state(), state)


def test_a_loaded_session_keeps_its_proof(tmp_path: Path) -> None:
    session, _ = learnt(fh.preset("hat", tasks=3), ("a",))
    report = session.verify()
    session.save(tmp_path / "one")
    fh.load(network(), tmp_path / "one").save(tmp_path / "two")
    assert read_summary(tmp_path / "two").verified == report


def test_a_proof_that_does_not_hold_any_more_is_not_shown() -> None:
    session, _ = learnt(fh.preset("hat", tasks=3), ("a", "b"))
    report = session.verify()
    state = session.state_dict()
    assert summarize(session).verified == report
    session.load_state_dict(state)
    assert summarize(session).verified is None
    session.verify()
    session.forget("b", dry_run=False)
    assert summarize(session).verified is None


def test_a_proof_that_raises_discards_an_earlier_one() -> None:
    session, _ = learnt({"version": 1, "adjustment": {"mode": "hat"}}, ("a", "b"))
    session.verify()

    def broken(groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
        raise RuntimeError("this proof found nothing")

    with pytest.raises(Exception, match="this proof found nothing"):
        session.verify(optimizer=broken)
    assert summarize(session).verified is None


def test_a_folder_of_an_early_release() -> None:
    summary = read_summary(ROOT / "tests" / "fixtures" / "saved" / "v1")
    assert summary.plan is None
    assert summary.verified is None
    assert list(summary.capacity.values()) == [None] * len(summary.tasks)


def test_damaged_metadata_is_reported(tmp_path: Path) -> None:
    session, _ = learnt(fh.preset("hat", tasks=3), ("a",))
    session.save(tmp_path)
    manifest = parse((tmp_path / "manifest.json").read_bytes())
    changed = manifest.model_copy(update={"about": {"plan": "none"}})
    (tmp_path / "manifest.json").write_bytes(changed.as_bytes())
    with pytest.raises(DamagedCheckpointError, match="something in it is not"):
        read_summary(tmp_path)
    assert fh.load(network(), tmp_path).tasks == ("a",)  # loading does not need it


def test_no_folder(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError):
        read_summary(tmp_path)


def test_a_session_that_is_not_traced() -> None:
    with pytest.raises(NoTaskError):
        summarize(fh.attach(network(), fh.preset("hat", tasks=3)))


# ------------------------------------------------------------------ accuracies
def metric() -> AccuracyMatrix:
    found = AccuracyMatrix(["a", "b"])
    found.update(torch.tensor([0, 1]), torch.tensor([0, 0]), learnt="a", task="a")
    for task in "ab":
        found.update(torch.tensor([1]), torch.tensor([1]), learnt="b", task=task)
    return found


@pytest.mark.parametrize(
    "given",
    [
        [[0.5], [1.0, 1]],
        [[0.5, None], [1, 1]],
        torch.tensor([[0.5, NAN], [1, 1]]),
        np.array([[0.5, NAN], [1, 1]], dtype=np.float32),
        metric(),
    ],
    ids=lambda given: type(given).__name__,
)
def test_accuracies_in_any_form(given: Any) -> None:
    session, _ = learnt(fh.preset("hat", tasks=3), ("a", "b"))
    found = summarize(session, given).accuracy
    assert found is not None
    torch.testing.assert_close(found, torch.tensor([[0.5, NAN], [1, 1]]).double(), equal_nan=True)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([[0.5]], "2 x 2"),
        ([[0.5], [0.5, 0.5, 0.5]], "2 x 2"),
        ([0.5, 0.5], "2 x 2"),
        ("high", "'high'"),
        ([["high"], [1, 1]], "2 rows"),
        ([[50], [60, 70]], "between 0 and 1"),
    ],
)
def test_invalid_accuracies_are_refused(given: Any, message: str) -> None:
    session, _ = learnt(fh.preset("hat", tasks=3), ("a", "b"))
    with pytest.raises(BadCallError, match=message):
        summarize(session, given)


def test_the_manifest_stays_json(tmp_path: Path) -> None:
    session, _ = learnt(fh.preset("fg_adahat", tasks=3), ("a",))
    session.save(tmp_path)
    about = json.loads((tmp_path / "manifest.json").read_text())["about"]
    assert [layer["name"] for layer in about["plan"]["layers"]] == ["0", "2"]
    assert about["verified"] is None
