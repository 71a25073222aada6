"""Certificates: one changed bit of a finished task is found, and named."""

from __future__ import annotations

import copy
from collections import UserDict
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import fgadahat_hooks as fh
from fgadahat_hooks.errors import AuditError, BadCallError, NoTaskError, TaskRunningError
from fgadahat_hooks.verify import digests
from tests.support import branch_models
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
    "bias": (lambda s: _used_rows(s, "bias"), "entries of conv1.bias"),
    "head": (lambda s: s._sequence.state.record("a").tensors["head.weight"], "the task's own head.weight"),
    "buffer": (lambda s: s._sequence.state.record("a").tensors["bn1.running_mean"], "the task's own bn1.running_mean"),
    "mask": (lambda s: next(iter(s._sequence.state.record("a").masks.values())), "mask of "),
}


def _used_rows(session: fh.Session, local: str = "weight") -> Tensor:
    """Return the first row of a first layer's parameter that task 'a' uses."""
    name, mask = next(iter(session.masks("a").items()))
    return session.model.get_parameter(f"{name}.{local}")[int(mask.nonzero()[0])]


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
        return [t + 1e-7 for t in shifted(*args)]

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


def test_other_values_of_a_buffer_or_a_head_in_the_model_are_no_change() -> None:
    """Between tasks finished ones read what is stored for them, not what the model holds."""
    session = certified()
    session.model.get_buffer("bn1.running_mean").data += 1
    session.model.get_parameter("head.weight").data += 1
    assert session.audit().outputs == 2


def test_neither_modes_nor_random_numbers_change() -> None:
    session = learnt()
    for training in (True, False):
        session.model.train(training)
        before = torch.get_rng_state()
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
            session.certify(canary())
        session.audit()
        assert session.model.training is training
        assert torch.equal(before, torch.get_rng_state())


def test_a_copy_of_the_session_is_audited_for_itself() -> None:
    session = certified()
    copied = copy.deepcopy(session)
    flip(_used_rows(copied))
    session.audit()
    with pytest.raises(AuditError, match="entries of"):
        copied.audit()


@pytest.mark.parametrize("kind", [branch_models.SkippedLayer, branch_models.Borrowed, branch_models.OtherFeeder])
@pytest.mark.parametrize("sign", [1, -1])
def test_execution_paths_that_are_first_taken_later_are_no_change(kind: type[branch_models.Base], sign: int) -> None:
    """They add entries that are protected; what was certified are those that the task read by the paths known then."""
    session = branch_models.attached(kind())
    branch_models.learn(session, "a", (1,))
    session.certify(branch_models.batch(sign))
    branch_models.learn(session, "b", (-1,))
    branch_models.learn(session, "c", (1, -1))
    assert session.audit().outputs == 1


def test_entries_that_only_the_canaries_path_reads_are_certified() -> None:
    session = branch_models.attached(branch_models.SkippedLayer())
    branch_models.learn(session, "a", (1,))
    certified_at_once = session.certify(branch_models.batch(-1)).tasks["a"].tensors
    assert session.graph.inputs  # traces what is new
    assert session.certify(renew=True).tasks["a"].tensors == certified_at_once


def test_shared_tensors_are_named_and_the_spec_is_blamed() -> None:
    session = learnt({"norms": "share"}, tasks="a")
    session.certify(canary())
    learn(session, "b", [batch(seed=1)] * 2, recipe("sgd"))
    with pytest.raises(AuditError, match=r"task 'a': shared bn1\.(.|\n)*By the spec.*\n.*norms: share"):
        session.audit()


def test_a_cast_is_told() -> None:
    session = certified()
    session.model.double()
    with pytest.raises(AuditError, match=r"entries of (.|\n)*dtype torch\.float64, was torch\.float32"):
        session.audit()


@pytest.mark.parametrize(
    ("forward", "message"),
    [
        (lambda x, more: x, r"task 'a': its outputs cannot be computed on the canary inputs \(TypeError: "),
        (
            lambda x: x.flatten(1).double(),
            r"task 'a': its outputs on the canary inputs are others: output 1, torch\.flo",
        ),
    ],
)
def test_a_forward_that_does_something_else_is_no_matter_of_rounding(
    forward: Any, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = certified()
    monkeypatch.setattr("fgadahat_hooks.verify.audit.environment", lambda _: {"torch": "9.9"})
    session.model.forward = forward
    with pytest.raises(AuditError, match=message):
        session.audit()


# ------------------------------------------------------------------ canary inputs
class Pair(NamedTuple):
    """Inputs as a named tuple."""

    image: Tensor
    scale: float


class Nested(nn.Module):
    """Takes a named tuple in a list, and a keyword."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden, self.head = nn.Linear(72, 8), nn.Linear(8, 3)

    def forward(self, pairs: list[Pair], flags: dict[str, Tensor]) -> Tensor:
        h = F.relu(self.hidden(pairs[0].image.flatten(1))) * pairs[0].scale
        logits: Tensor = self.head(h * flags["keep"].to(h))
        return logits


def nested_inputs() -> Any:
    return UserDict(pairs=[Pair(canary(), 2.0)], flags={"keep": torch.tensor([True])})


def test_nested_inputs_are_kept(tmp_path: Path) -> None:
    session = fh.attach(Nested(), {}, dict(nested_inputs()))
    with session.task("a") as task:
        task.anneal(1, 1)
    certificate = session.certify(nested_inputs())
    assert certificate.input_bytes == 3 * 72 * 4 + 1
    assert "(865 bytes) are kept with the session" in str(certificate)
    session.save(tmp_path / "run")
    assert fh.load(Nested(), tmp_path / "run", dict(nested_inputs())).audit().outputs == 1


class Sampling(nn.Module):
    """Draws numbers that no seed of torch reaches."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden, self.head, self.calls = nn.Linear(72, 8), nn.Linear(8, 3), 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        logits: Tensor = self.head(F.relu(self.hidden(x.flatten(1)))) * self.calls
        return logits


# ------------------------------------------------------------------ calls that cannot be answered
def test_outputs_that_differ_from_call_to_call_are_refused() -> None:
    session = learnt(model=Sampling(), tasks="a")
    with pytest.raises(BadCallError, match="task 'a' gives other outputs on a second call"):
        session.certify(canary())


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (lambda model: model(canary()), "a dict of keyword arguments: they are kept.*got function"),
        ((), "got tuple without tensors"),
        (canary()[:0], "but the outputs of .*'a'.* are empty"),
        (canary() * float("nan"), "their digests would prove nothing"),
        ((canary(), {1}), "but got one of type set"),
    ],
)
def test_inputs_that_are_refused(inputs: Any, message: str) -> None:
    session = learnt(tasks="a")
    with pytest.raises(BadCallError, match=message):
        session.certify(inputs)
    assert session.certificate is None


def test_bad_calls() -> None:
    session = learnt(tasks="")
    with pytest.raises(NoTaskError, match="nothing to certify yet"):
        session.certify()
    learn(session, "a", [batch()], recipe("sgd"))
    with pytest.raises(NoTaskError, match=r"Call `session\.certify\(inputs\)`"):
        session.audit()
    with session.task("b") as task:
        task.anneal(1, 1)
        with pytest.raises(TaskRunningError, match="Task 'b' has not ended; certify after it has"):
            session.certify(canary())
    assert session.certificate is None
