"""Each way of writing weights outside of a protected step, and what happens at the door that it comes to first."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import SGD, AdamW, Optimizer

import fgadahat_hooks as fh
from fgadahat_hooks.errors import ProtectedWeightsRestoredWarning, WeightsChangedError
from fgadahat_hooks.gates.kept_weights import KeptWeights
from tests.support.small import aborted, backward, batches, learn, mlp, snapshot

DATA = batches(4, 3)
X = torch.randn(3, 4, dtype=torch.float64)
After = Callable[[nn.Module, Optimizer], object]


class Scaled(nn.Module):
    """A model with a parameter that is frozen after the first task."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.scale = mlp(4, 8, 6), nn.Parameter(torch.rand(6, dtype=torch.float64))
        self.head = nn.Linear(6, 3, dtype=torch.float64)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(torch.relu(self.body(x)) * self.scale)
        return logits


def learnt(**spec: Any) -> tuple[fh.Session, Tensor]:
    """Return a session after one task, and the task's logits."""
    torch.manual_seed(3)
    spec = {"rest": "freeze", "adjustment": {"mode": "hat"}, **spec}
    session = fh.attach(Scaled(), spec, X)
    learn(session, "a", DATA)
    assert 0 < int(session.masks("a")["body.0"].sum()) < 8
    return session, logits(session)


def logits(session: fh.Session, task: str = "a") -> Tensor:
    with session.use(task), torch.no_grad():
        return session.model(X)  # type: ignore[no-any-return]


def learn_another(session: fh.Session, after: After, end: After = lambda *_: None, make: Any = SGD) -> None:
    """Learn a task in a loop that does something after each step, and at the end."""
    with session.task("b") as task:
        optimizer = task.protect(make(session.parameter_groups(lr=0.1, gate_lr=0.01)))
        for batch in task.batches(DATA):
            optimizer.zero_grad()
            backward(session, task, batch)
            optimizer.step()
            after(session.model, optimizer)
        end(session.model, optimizer)


# ------------------------------------------------------------------ what others write
@torch.no_grad()
def clip(model: nn.Module, _: Optimizer) -> None:
    for p in model.parameters():
        p.clamp_(-0.1, 0.1)


@torch.no_grad()
def unit_rows(model: nn.Module, _: Optimizer) -> None:
    weight = model.get_parameter("body.2.weight")
    weight.div_(weight.norm(dim=1, keepdim=True))


@torch.no_grad()
def by_hand(model: nn.Module, _: Optimizer) -> None:
    for p in model.parameters():
        if p.grad is not None:
            p.sub_(p.grad, alpha=0.1)


def past_the_counter(model: nn.Module, _: Optimizer) -> None:
    for p in model.parameters():
        p.data.mul_(0.9)


def another_parameter(model: nn.Module, _: Optimizer) -> None:
    body: Any = model.get_submodule("body.0")
    model.load_state_dict({"body.0.weight": torch.randn_like(body.weight)}, strict=False, assign=True)


class Average:
    """An exponential average of all parameters, copied into the model at the end."""

    def __init__(self) -> None:
        self.values: dict[str, Tensor] = {}

    def update(self, model: nn.Module, _: Optimizer) -> None:
        for name, p in model.named_parameters():
            self.values[name] = self.values.get(name, torch.zeros_like(p)).lerp(p.detach(), 0.5)

    @torch.no_grad()
    def copy_in(self, model: nn.Module, _: Optimizer) -> None:
        for name, p in model.named_parameters():
            p.copy_(self.values[name])


def writes(name: str) -> dict[str, After]:
    average = Average()
    return {
        "clipping": {"after": clip},
        "projection": {"after": unit_rows},
        "a step by hand": {"after": by_hand},
        "writes that are not counted": {"after": past_the_counter},
        "an average": {"after": average.update, "end": average.copy_in},
        "loading": {
            "after": lambda *_: None,
            "end": lambda m, _: m.load_state_dict(Scaled().state_dict(), strict=False),
        },
        "another parameter object": {"after": lambda *_: None, "end": another_parameter},
    }[name]  # type: ignore[return-value]


WRITES = ["clipping", "projection", "a step by hand", "writes that are not counted", "an average", "loading"]


@pytest.mark.parametrize("name", [*WRITES, "another parameter object"])
def test_what_is_written_while_a_task_runs_is_put_back_and_told_once(name: str) -> None:
    session, before = learnt()
    free = ~session.masks("a")["body.0"]
    start = session.model.get_parameter("body.0.weight").detach().clone()
    with pytest.warns(ProtectedWeightsRestoredWarning, match="Likely causes: an average of weights") as told:
        learn_another(session, **writes(name))
    names = [str(warning.message) for warning in told]
    assert len(names) <= 2  # of the second, other tensors than of the first
    assert torch.equal(logits(session), before)
    assert name == "projection" or not torch.equal(session.model.get_parameter("body.0.weight")[free], start[free])
    session.verify(X)
    ended = logits(session, "b")
    learn(session, "c", DATA)
    assert torch.equal(logits(session, "b"), ended)


def test_a_frozen_parameter_is_put_back_before_the_next_batch() -> None:
    session, _ = learnt()
    scale, seen = session.model.get_parameter("scale"), []
    kept = scale.detach().clone()

    def double(model: nn.Module, _: Optimizer) -> None:
        seen.append(torch.equal(scale.detach(), kept))
        with torch.no_grad():
            scale.mul_(2)

    with pytest.warns(ProtectedWeightsRestoredWarning, match="'scale', had changed before a batch"):
        learn_another(session, double)
    assert len(seen) > 1
    assert all(seen)


def test_an_ordinary_task_warns_of_nothing_and_reads_no_values_between_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    session, before = learnt()
    seen: list[int] = []
    compare = KeptWeights.differing

    def counted(kept: KeptWeights, entries: Any) -> dict[str, int]:
        seen.append(len(entries))
        return compare(kept, entries)

    monkeypatch.setattr(KeptWeights, "differing", counted)
    with session.task("b") as task:
        optimizer = task.protect(AdamW(session.parameter_groups(lr=0.1, weight_decay=0.5)))
        for number, batch in enumerate(task.batches(DATA * 3)):
            if number == 1:
                seen.clear()
            optimizer.zero_grad()
            backward(session, task, batch)
            optimizer.step()
        assert seen == []
    assert torch.equal(logits(session), before)


# ------------------------------------------------------------------ between tasks
def serve(session: fh.Session, folder: Path) -> None:
    logits(session)


def serve_a_mixed_batch(session: fh.Session, folder: Path) -> None:
    with session.use(["a", "a", "a"]):
        session.model(X)


def save(session: fh.Session, folder: Path) -> None:
    session.save(folder)


def export(session: fh.Session, folder: Path) -> None:
    session.export("a")


def verify(session: fh.Session, folder: Path) -> None:
    session.verify(X)


def begin(session: fh.Session, folder: Path) -> None:
    with aborted(session, "b"):
        pass


def take_state(session: fh.Session, folder: Path) -> None:
    session.state_dict()


DOORS = [serve, serve_a_mixed_batch, save, export, verify, begin, take_state]


@pytest.mark.parametrize("door", DOORS, ids=lambda door: door.__name__)
@pytest.mark.parametrize("mode", ["hat", "adahat"])
def test_what_was_written_between_tasks_is_put_back_at_every_door(door: Any, mode: str, tmp_path: Path) -> None:
    adjustment = {"mode": mode, **({} if mode == "hat" else {"intensity": 0.1})}
    session, before = learnt(adjustment=adjustment)
    past_the_counter(session.model, SGD(Scaled().parameters()))
    with pytest.warns(ProtectedWeightsRestoredWarning, match="finished tasks are as they were"):
        door(session, tmp_path / "run")
    assert torch.equal(logits(session), before)


@pytest.mark.parametrize("door", DOORS, ids=lambda door: door.__name__)
def test_other_weights_that_were_loaded_between_tasks_are_refused_until_the_right_ones_are(
    door: Any, tmp_path: Path
) -> None:
    session, before = learnt()
    right = copy.deepcopy(session.model.state_dict())
    session.model.load_state_dict({k: torch.randn_like(v) for k, v in right.items()})
    loaded = snapshot(session.model)
    for _ in range(2):
        with pytest.raises(WeightsChangedError, match="other weights were loaded into the model after the last task"):
            door(session, tmp_path / "run")
    assert all(torch.equal(value, loaded[name]) for name, value in snapshot(session.model).items())
    session.model.load_state_dict(right)
    door(session, tmp_path / "run")
    assert torch.equal(logits(session), before)


def test_weights_and_session_may_be_loaded_in_either_order(tmp_path: Path) -> None:
    session, before = learnt()
    state, weights = session.state_dict(), copy.deepcopy(session.model.state_dict())
    for weights_first in (True, False):
        other, _ = learnt()
        learn(other, "x", DATA)
        if weights_first:
            other.model.load_state_dict(weights)
        other.load_state_dict(state)
        if not weights_first:
            other.model.load_state_dict(weights)
        assert torch.equal(logits(other), before)
        past_the_counter(other.model, SGD(Scaled().parameters()))
        with pytest.warns(ProtectedWeightsRestoredWarning):
            assert torch.equal(logits(other), before)


def test_weights_that_change_while_a_task_is_in_use_are_an_error() -> None:
    session, before = learnt()

    def change_in_use(part: str) -> None:
        with session.use("a"):
            clip(session.model.get_submodule(part), SGD(Scaled().parameters()))

    with pytest.raises(WeightsChangedError, match="changed while task 'a' was in use: what it computed since may be"):
        change_in_use("body")
    assert torch.equal(logits(session), before)
    with pytest.raises(
        WeightsChangedError, match=r"2 tensor\(s\) of task 'a' itself, first 'head\.weight', were written"
    ):
        change_in_use("head")


def test_adapters_that_are_merged_are_refused() -> None:
    session, before = learnt()
    layer: Any = session.model.get_submodule("body.2")
    layer.merged, layer.weight.data = True, layer.weight.data + 1
    with pytest.raises(WeightsChangedError, match=r"adapters are merged into 'body\.2\.weight'"):
        logits(session)
    layer.merged, layer.weight.data = False, layer.weight.data - 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # only rounded
        assert torch.equal(logits(session), before)


class Backbone(nn.Module):
    """Much of it never trains."""

    def __init__(self) -> None:
        super().__init__()
        self.big, self.body, self.head = nn.Linear(4, 64).double(), mlp(64, 4), nn.Linear(4, 3).double()
        self.bigger = nn.Linear(64, 64).double()
        self.big.requires_grad_(False), self.bigger.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(torch.relu(self.body(self.bigger(self.big(x)))))
        return logits


def test_a_large_frozen_part_is_watched_without_a_copy() -> None:
    session = fh.attach(Backbone(), {"gates": {"targets": ["body.0"]}, "adjustment": {"mode": "hat"}}, X)
    learn(session, "a", DATA)
    before = logits(session)
    kept = session._sequence.state.kept
    assert kept is not None
    assert kept.nbytes < 64 * 64 * 8 / 2
    weight = session.model.get_parameter("bigger.weight")
    value = weight[0, 0].clone()
    weight.data[0, 0] += 1e-9
    with pytest.raises(WeightsChangedError, match=r"'bigger\.weight' is frozen and was written into"):
        logits(session)
    weight.data[0, 0] = value
    assert torch.equal(logits(session), before)


def test_what_a_cast_or_a_move_does_to_all_weights_alike_is_no_change() -> None:
    session, before = learnt()
    session.model.float()
    with session.use("a"), torch.no_grad():
        single = session.model(X.float())
    torch.testing.assert_close(single, before.float())
    clip(session.model, SGD(Scaled().parameters()))
    with pytest.warns(ProtectedWeightsRestoredWarning), session.use("a"), torch.no_grad():
        assert torch.equal(session.model(X.float()), single)


def test_after_a_failed_step_or_task_nothing_is_told() -> None:
    class Fails(SGD):
        @torch.no_grad()
        def step(self, closure: Any = None) -> Any:
            for group in self.param_groups:
                for p in group["params"]:
                    p.add_(1.0)
            raise MemoryError

    session, before = learnt()
    with pytest.raises(MemoryError):
        learn_another(session, lambda *_: None, make=Fails)
    assert torch.equal(logits(session), before)


def test_forgetting_a_task_keeps_what_the_others_read() -> None:
    session, _ = learnt()
    learn(session, "b", DATA)
    before = logits(session, "b")
    session.forget("a", dry_run=False)
    past_the_counter(session.model, SGD(Scaled().parameters()))
    with pytest.warns(ProtectedWeightsRestoredWarning):
        assert torch.equal(logits(session, "b"), before)
