"""The static proof: what it reports, what it finds, and that it runs on a copy."""

from __future__ import annotations

import copy

import pytest
import torch

import fgadahat_hooks as fh
from fgadahat_hooks.errors import LeakError
from tests.support.learning import gates, learn, recipe
from tests.support.small_models import Backwards, Functional, Net, TwoHeads, batch
from tests.support.snapshot import differences, snapshot


def learnt(spec: object = None, tasks: str = "ab") -> fh.Session:
    session = fh.attach(Net(), spec, batch(1)[0])
    for task in tasks:
        learn(session, task, [batch(seed=ord(task))] * 2, recipe("adamw"))
    return session


def test_reports_what_was_overwritten_and_what_was_not() -> None:
    session = fh.attach(Backwards(), None, batch(1)[0])
    learn(session, "a", [batch()] * 3, recipe("adamw"))
    report = session.verify()
    first, second = (int(session.masks("a")[n].sum()) for n in ("first", "second"))
    assert report.kept == first * 73 + first * second + second
    embeddings, head = 7 + 11, 3 * 12
    assert report.free + report.kept == 7 * 73 + 11 * 8 + embeddings + head
    assert (report.tasks, report.leaks) == (("a",), {})
    assert f"{report.free:,} free elements" in str(report)


def test_leaves_model_session_and_random_state_alone() -> None:
    session = learnt()
    before, rng = snapshot(session.model), torch.get_rng_state()
    masks, scale = session.masks("a"), gates(session)[0].context.scale
    first, second = session.verify(), session.verify(batch()[0])
    assert differences(before, snapshot(session.model)) == []
    assert torch.equal(torch.get_rng_state(), rng)
    assert gates(session)[0].context.scale is scale
    assert all(torch.equal(mask, session.masks("a")[name]) for name, mask in masks.items())
    assert first == second


def test_accepts_inputs_in_every_form() -> None:
    session, x = learnt(), batch(2)[0]
    for inputs in (x, (x,), {"x": x}, lambda model: model(x)):
        assert session.verify(inputs).leaks == {}


@pytest.mark.parametrize("model", [Functional(), TwoHeads(), Backwards()], ids=lambda m: type(m).__name__)
def test_holds_for_all_kinds_of_models(model: torch.nn.Module) -> None:
    session = fh.attach(model, None, batch(1)[0])
    for task in "ab":
        with session.task(task) as running:
            running.anneal(1, 1)
    session.verify()


def test_heads_of_other_sizes() -> None:
    session = fh.attach(Net(), None, batch(1)[0])
    for task, classes in {"a": 2, "b": 3, "c": 7}.items():
        learn(session, task, [(batch()[0], batch()[1] % 2)], recipe("adamw"), num_classes=classes)
    assert session.verify().tasks == ("a", "b", "c")


def test_a_zero_head_hides_nothing() -> None:
    session = learnt({"norms": "share"}, tasks="")
    with session.task("a") as task:
        task.anneal(1, 1)
        with torch.no_grad():
            session.model.get_parameter("head.weight").zero_()
    with pytest.raises(LeakError, match=r"bn1\.weight"):
        session.verify()


def test_names_exactly_the_tensors_that_leak_and_why() -> None:
    session = learnt({"rest": "share"})
    with pytest.raises(LeakError) as caught:
        session.verify()
    text = str(caught.value)
    assert "1 tensor(s) leak into finished tasks" in text
    assert "scale: changes 'a', 'b'" in text
    assert "scale: shared (rest: share)" in text
    assert "please report" not in text


def test_finds_a_unit_graph_that_is_wrong() -> None:
    """A layer whose inputs are assigned to the wrong units is an error of the trace that the proof must find."""
    session = learnt()
    graph = session.graph
    inputs = copy.copy(graph.inputs["hidden"])
    object.__setattr__(inputs, "unit", inputs.unit.flip(0))
    graph.inputs["hidden"] = inputs
    with pytest.raises(LeakError, match=r"(?s)hidden\.weight: changes.*please report this model"):
        session.verify()


def test_the_report_lists_what_can_change_by_choice() -> None:
    session = fh.attach(Net(), {"adjustment": {"mode": "hat_const_1"}}, batch(2)[0])
    learn(session, "a", [batch()], recipe("sgd"))
    report = session.verify()
    assert report.by_choice == session.plan.leaks
    assert "But later tasks can still change them" in str(report)
    assert "hat_const_1" in str(report)
