"""Which new execution paths are noticed, what is traced of them, and what the graph then contains."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import LBFGS, SGD, AdamW

import fgadahat_hooks as fh
from fgadahat_hooks.errors import DetachedError, LeakError, NoTaskError, TraceError
from tests.support.branch_models import (
    SPEC,
    Base,
    Borrowed,
    OtherActivation,
    OtherFeeder,
    SkippedLayer,
    SkippedNorm,
    attached,
    batch,
    learn,
    task_logits,
)
from tests.support.snapshot import differences, snapshot


# ------------------------------------------------------------------ the graph afterwards
def test_inputs_fed_from_elsewhere_become_live() -> None:
    session = attached(OtherFeeder())
    assert session.graph.inputs["b"].resolved == 1.0
    with torch.no_grad():
        session.model.eval()(batch(-1))
    assert session.graph.inputs["b"].resolved == 0.0
    assert session.graph.inputs["a"].resolved == 1.0
    assert "other" in session.graph.inputs


def test_inputs_fed_by_other_units_are_fed_by_both() -> None:
    session = attached(SkippedLayer())
    session.model.eval()(batch(-1))
    inputs, stem, a = session.graph.inputs["b"], session.graph.layers["stem"], session.graph.layers["a"]
    assert inputs.resolved == 1.0
    for feature in range(10):
        found = set(inputs.unit[inputs.feature == feature].tolist())
        assert found == {stem.offset + feature, a.offset + feature}


@pytest.mark.parametrize(("kind", "layer"), [(SkippedNorm, "stem"), (Borrowed, "a")])
def test_a_layer_whose_gate_does_not_act_on_a_path_counts_as_used_throughout(kind: type[Base], layer: str) -> None:
    session = attached(kind())
    assert not session.graph.layers[layer].mixed_weight
    session.model.eval()(batch(-1))
    assert session.graph.layers[layer].mixed_weight
    assert sum(u.mixed_weight for u in session.graph.layers.values()) == 1


def test_a_new_path_is_traced_once() -> None:
    session = attached(OtherActivation())
    watch = session._sequence.branches
    assert watch is not None
    session.model.eval()(batch(1))
    assert watch.pending == []
    session.model(batch(-1))
    session.model(batch(-1, seed=3))
    assert len(watch.pending) == 1
    graph = session.graph
    assert watch.pending == []
    session.model(batch(-1))
    session.model.train()(batch(-1))
    assert watch.pending == []
    assert session.graph is graph
    other = attached(OtherActivation())
    watch = other._sequence.branches
    assert watch is not None
    other.model.train()(batch(-1))
    assert other.graph.inputs["b"].resolved == 0.0
    assert watch.pending == []  # the trace's own forward is no new path


class OtherInTraining(Base):
    """Training always takes the path that evaluation takes on negative inputs alone."""

    def forward(self, x: Tensor) -> Tensor:
        return self.finish(self.other(x)[..., :4, :4] if self.training or self.negative(x) else self.usual(x))


def test_a_path_of_training_is_not_known_for_evaluation() -> None:
    session = attached(OtherInTraining())
    learn(session, "a", (1,))
    assert session.graph.inputs["b"].resolved == 1.0  # evaluation has not taken that path
    before = task_logits(session, "a", -1)
    assert session.graph.inputs["b"].resolved == 0.0
    learn(session, "b", (1, -1))
    assert torch.equal(before, task_logits(session, "a", -1))


class SigmoidInTraining(Base):
    """The same, with the same layers on both paths, so that `attach` traces evaluation alone."""

    def forward(self, x: Tensor) -> Tensor:
        h = self.a(self.relu(self.norm(self.stem(x))))
        return self.finish(self.sigmoid(h) if self.training or self.negative(x) else self.relu(h))


def test_a_new_path_of_training_is_not_known_for_evaluation() -> None:
    model = SigmoidInTraining()
    del model.other
    session = fh.attach(model, {}, batch(1, count=2))
    assert not session.graph.training_paths
    learn(session, "a", (1,))
    assert session.graph.inputs["b"].resolved == 1.0
    before = task_logits(session, "a", -1)
    assert session.graph.inputs["b"].resolved == 0.0
    learn(session, "b", (1, -1))
    assert torch.equal(before, task_logits(session, "a", -1))


def test_gradients_are_scaled_by_what_the_new_path_shows() -> None:
    session = fh.attach(OtherFeeder(), SPEC | {"adjustment": {"mode": "hat", "apply_to": "gradient"}}, batch(1))
    learn(session, "a", (1,))
    weight, used = session.model.get_parameter("b.weight"), session.masks("a")["b"]
    before = weight.detach().clone()
    with session.task("b") as task:
        optimizer = task.protect(SGD(session.parameter_groups(lr=0.1)))
        session.model.train()
        for sign in task.batches([-1, -1]):
            optimizer.zero_grad()
            session.model(batch(sign)).square().sum().backward()
            optimizer.step()
    assert torch.equal(weight[used], before[used])
    assert not torch.equal(weight[~used], before[~used])


def test_retracing_needs_a_traced_and_attached_model() -> None:
    with pytest.raises(NoTaskError, match="has not been traced yet"):
        fh.attach(OtherFeeder(), SPEC).retrace(batch(1))
    session = attached(OtherFeeder())
    with pytest.raises(TraceError, match="on the example inputs"):
        session.retrace(torch.zeros(2, 5, 8, 8))
    session.detach()
    with pytest.raises(DetachedError):
        session.retrace(batch(1))
    assert not session.model._forward_hooks
    assert not any(module._forward_pre_hooks for module in session.model.modules())


def test_a_copy_of_the_model_is_not_watched() -> None:
    session = attached(OtherFeeder())
    watch = session._sequence.branches
    assert watch is not None
    for twin in (copy.deepcopy(session.model), pickle.loads(pickle.dumps(session.model))):  # noqa: S301  # our own bytes
        twin.eval()(batch(-1))
    copy.copy(session.model).eval()(batch(-1))  # has the hooks of the original, as a replica for another device
    assert watch.pending == []


def test_the_trace_leaves_the_model_and_a_running_backward_alone() -> None:
    session = attached(OtherActivation())
    learn(session, "a", (1,))
    with session.task("b") as task:
        task.anneal(1, 2)
        optimizer = task.protect(AdamW(session.parameter_groups(lr=1e-2)))
        session.model.train()
        loss = session.model(batch(-1)).square().sum()
        before, rng = snapshot(session.model), torch.get_rng_state()
        _ = session.graph  # traces between forward and backward
        assert differences(before, snapshot(session.model)) == []
        assert torch.equal(torch.get_rng_state(), rng)
        loss.backward()
        optimizer.step()
    assert session.tasks == ("a", "b")


def test_rates_of_a_running_task_follow_the_graph() -> None:
    session = attached(OtherFeeder())
    learn(session, "a", (1,))
    weight = session.model.get_parameter("b.weight")
    used = session.masks("a")["b"]
    with session.task("b") as task:
        optimizer = task.protect(AdamW(session.parameter_groups(lr=1e-2, weight_decay=0.1)))
        session.model.train()
        for sign in task.batches([1, -1, 1]):
            before = weight.detach().clone()
            optimizer.zero_grad()
            session.model(batch(sign)).square().sum().backward()
            optimizer.step()
            moved = (weight != before)[used]
            assert bool(moved.any()) == (sign == 1 and not session.graph.inputs["b"].live.any())


def test_a_closure_that_takes_a_new_path_within_the_step() -> None:
    session = attached(OtherActivation())
    learn(session, "a", (1,))
    before = [task_logits(session, "a", 1), session.model.get_parameter("b.weight").detach().clone()]
    used = session.masks("a")["b"]
    with session.task("b") as task:
        groups = [p for group in session.parameter_groups(lr=0.1) for p in group["params"]]
        optimizer = task.protect(LBFGS(groups, lr=0.1, max_iter=2))

        def closure() -> Any:
            optimizer.zero_grad()
            loss = session.model(batch(-1)).square().sum()
            loss.backward()
            return loss

        session.model.train()
        for _ in task.batches(range(2)):
            optimizer.step(closure)
    assert torch.equal(before[1][used], session.model.get_parameter("b.weight")[used])
    assert torch.equal(before[0], task_logits(session, "a", 1))


# ------------------------------------------------------------------ paths that differ only in functions
class Functional(Base):
    """The same modules run in the same order; only a function differs."""

    def forward(self, x: Tensor) -> Tensor:
        h = self.usual(x)
        return self.finish(h + 1 if self.negative(x) else h)


def both(model: nn.Module) -> Any:
    return [model(batch(1, count=2)), model(batch(-1, count=2))]


def at_attach() -> fh.Session:
    return fh.attach(Functional(), SPEC | {"heads": {"names": ["head"]}}, both)


def later() -> fh.Session:
    session = attached(Functional())
    session.retrace(batch(-1, count=2))
    return session


@pytest.mark.parametrize("make", [at_attach, later])
def test_paths_of_functions_are_traced_on_request(make: Callable[[], fh.Session]) -> None:
    session = make()
    assert session.graph.inputs["b"].resolved == 0.0
    learn(session, "a", (1, -1))
    before = task_logits(session, "a", -1)
    learn(session, "b", (1, -1))
    assert torch.equal(before, task_logits(session, "a", -1))


def test_paths_of_functions_are_not_noticed_by_themselves_and_verify_finds_them() -> None:
    session = attached(Functional())
    learn(session, "a", (1,))
    session.verify()
    with pytest.raises(LeakError, match=r"b\.weight: changes 'a'"):
        session.verify(batch(-1))
