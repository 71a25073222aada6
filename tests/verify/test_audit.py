"""Certificates: one changed bit of a finished task is found, and named."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import fgadahat_hooks as fh
from fgadahat_hooks.errors import AuditError, BadCallError, NoTaskError, TaskRunningError
from fgadahat_hooks.verify import digests
from tests.support.learning import learn, recipe
from tests.support.small_models import Net, batch
from tests.verify.sessions import learnt


def canary() -> Tensor:
    return batch(3, seed=9)[0]


def certified(tasks: str = "ab") -> fh.Session:
    session = learnt(tasks=tasks)
    session.certify(canary())
    return session


def flip(tensor: Tensor) -> None:
    """Change the last bit of the first element that is not zero, behind autograd's back."""
    flat = tensor.data.reshape(-1)
    place = int(flat.nonzero()[0])
    if flat.dtype == torch.bool:
        flat[place] = False
    else:
        flat.view(torch.int32)[place] ^= 1


def test_later_tasks_do_not_change_what_was_certified() -> None:
    session = certified("a")
    learn(session, "b", [batch(seed=1)] * 2, recipe("sgd"))
    before = session.model.training, torch.get_rng_state()
    report = session.audit()
    assert (report.tasks, report.uncertified, report.environment) == (("a",), ("b",), ())
    assert report.outputs >= 1
    assert "Not certified yet: 'b'" in str(report)
    assert (session.model.training, torch.equal(before[1], torch.get_rng_state())) == (before[0], True)
    session.certify()  # with the same inputs, and the first task as it was
    assert session.audit().tasks == ("a", "b")


PLACES: dict[str, tuple[Callable[[fh.Session], Tensor], str]] = {
    "weight": (lambda s: _used_rows(s), "entries of "),
    "head": (lambda s: s._sequence.state.record("a").tensors["head.weight"], "the task's own head.weight"),
    "mask": (lambda s: next(iter(s._sequence.state.record("a").masks.values())), "mask of "),
}


def _used_rows(session: fh.Session) -> Tensor:
    """Return the first row of a first layer that task 'a' uses."""
    name, mask = next(iter(session.masks("a").items()))
    return session.model.get_parameter(f"{name}.weight")[int(mask.nonzero()[0])]


@pytest.mark.parametrize("place", PLACES)
def test_one_bit_is_found_and_named(place: str) -> None:
    session, (pick, name) = certified(), PLACES[place]
    session.audit()
    flip(pick(session))
    with pytest.raises(AuditError, match=rf"task 'a': (.*, )?{name}"):
        session.audit()


def test_a_frozen_tensor_that_changes_is_named() -> None:
    session = learnt({"rest": "freeze", "norms": "freeze"})
    session.certify(canary())
    frozen = next(p for p in session.plan.tensors if p.protection == "frozen" and p.kind == "parameter")
    flip(session.model.get_parameter(frozen.name))
    with pytest.raises(AuditError, match=f"frozen {frozen.name}"):
        session.audit()


def test_what_was_certified_is_not_certified_anew_in_silence() -> None:
    session = certified()
    record = session._sequence.state.record("b")
    flip(record.tensors["head.weight"])
    with pytest.raises(AuditError, match=r"task 'b': the task's own head\.weight"):
        session.certify()
    session.certify(renew=True)
    assert session.audit().tasks == ("a", "b")


def test_it_is_saved_and_loaded(tmp_path: Path) -> None:
    session = certified()
    session.save(tmp_path / "run")
    loaded = fh.load(Net(), tmp_path / "run")
    assert loaded.certificate is not None
    assert torch.equal(loaded.certificate.inputs, canary())
    assert loaded.audit() == session.audit()
    state = learnt(tasks="a").state_dict()
    assert "certificate" not in state
    loaded.load_state_dict(state)
    assert loaded.certificate is None


def test_a_forgotten_task_is_certified_no_more() -> None:
    session = learnt(fh.preset("fg_adahat", tasks=3))
    session.certify(canary())
    session.forget("a", dry_run=False)
    assert session.certificate is not None
    assert list(session.certificate.tasks) == ["b"]
    session.forget("b", dry_run=False)
    assert session.certificate is None


def test_outputs_that_differ_elsewhere_are_told_and_are_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    session = certified()
    real, shifted = digests.environment, digests.canary_outputs

    def other_outputs(*args: Any) -> Any:
        return {task: [t + 1e-7 for t in outputs] for task, outputs in shifted(*args).items()}

    monkeypatch.setattr("fgadahat_hooks.verify.audit.canary_outputs", other_outputs)
    with pytest.raises(AuditError, match="its outputs on the canary inputs"):
        session.audit()
    monkeypatch.setattr("fgadahat_hooks.verify.audit.environment", lambda model: real(model) | {"torch": "9.9"})
    report = session.audit()
    assert report.outputs == 0
    assert report.environment == (f"torch 9.9, was {torch.__version__}",)
    assert "prove nothing" in str(report)
    flip(_used_rows(session))
    with pytest.raises(AuditError, match=r"entries of (.|\n)*The environment differs, too: torch 9\.9"):
        session.audit()


# ------------------------------------------------------------------ calls that cannot be answered
def test_bad_calls() -> None:
    session = learnt(tasks="")
    with pytest.raises(NoTaskError, match="nothing to certify yet"):
        session.certify()
    learn(session, "a", [batch()], recipe("sgd"))
    with pytest.raises(NoTaskError, match=r"Call `session\.certify\(inputs\)`"):
        session.audit()
    with pytest.raises(BadCallError, match="a dict of keyword arguments: they are kept"):
        session.certify(lambda model: model(canary()))
    with pytest.raises(BadCallError, match="their digests would prove nothing"):
        session.certify(canary() * float("nan"))
    with session.task("b") as task:
        task.anneal(1, 1)
        with pytest.raises(TaskRunningError, match="Task 'b' has not ended; certify after it has"):
            session.certify(canary())
    assert session.certificate is None
