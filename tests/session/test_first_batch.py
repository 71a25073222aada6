"""Without example inputs, the first batch is traced; from then on nothing differs."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.optim import SGD

import fgadahat_hooks as fh
from fgadahat_hooks.errors import BadCallError, CapabilityError, NoTaskError, TraceError
from tests.support.learning import Batch, breaking, learn, logits, recipe
from tests.support.small_models import Backwards, Functional, Net, batch

SPECS: dict[str, dict[str, Any]] = {
    "hat": {"adjustment": {"mode": "hat"}},
    "activation measure": {
        "importance": {"type": "activation_abs"},
        "adjustment": {"mode": "fg_adahat", "intensity": 1e-3},
    },
    "frozen norms": {"norms": "freeze"},
}


def learn_alike(session: fh.Session, task: str, batches: list[Batch]) -> None:
    """Learn with embeddings that depend on the layer's name alone, not on the order in which they are drawn."""
    with session.task(task, num_classes=None) as running:
        optimizer = running.protect(SGD(session.parameter_groups(lr=0.05), momentum=0.9))
        for name, module in session.model.named_modules():
            if "hat_gate" in module._modules:
                seed = torch.Generator().manual_seed(sum(map(ord, task + name)))
                embedding = module.get_parameter("hat_gate.embedding")
                with torch.no_grad():
                    embedding.copy_(torch.randn(embedding.shape, generator=seed))
        torch.manual_seed(0)
        session.model.train()
        for x, y in running.batches(batches):
            optimizer.zero_grad()
            (F.cross_entropy(session.model(x), y) + running.regularization()).backward()
            optimizer.step()


@pytest.mark.parametrize(
    ("kind", "spec"),
    [
        (Net, "hat"),
        (Net, "activation measure"),
        (Net, "frozen norms"),
        (Backwards, "hat"),
        (Backwards, "activation measure"),
        (Functional, "hat"),
    ],
)
def test_behaves_as_with_example_inputs(kind: type[nn.Module], spec: str) -> None:
    sessions = []
    for example in (None, batch(1)[0]):
        torch.manual_seed(0)
        sessions.append(fh.attach(kind(), SPECS[spec], example))
    for session in sessions:
        torch.manual_seed(1)
        for seed, task in enumerate("ab"):
            torch.manual_seed(seed)
            learn_alike(session, task, [batch(seed=10 * seed + k) for k in range(3)])
    late, early = sessions
    assert late.graph.layers.keys() == early.graph.layers.keys()
    for task in "ab":
        assert torch.equal(logits(late, task, batch()[0]), logits(early, task, batch()[0]))
        for name, value in early.importance(task).items():
            assert torch.equal(late.importance(task)[name], value)
    assert late.plan == early.plan


@pytest.mark.parametrize("kind", [Net, Backwards, Functional])
def test_the_gates_act_on_the_traced_batch_itself(kind: type[nn.Module]) -> None:
    session = fh.attach(kind())
    x, _ = batch()
    with session.task("a") as task:
        task.anneal(1, 1)
        session.model.eval()
        assert torch.equal(session.model(x), session.model(x))


def test_an_exception_in_the_traced_task_restores_head_and_norms() -> None:
    session = fh.attach(Net())
    before = {name: value.clone() for name, value in session.model.state_dict().items()}
    with pytest.raises(ZeroDivisionError):
        learn(session, "a", breaking([batch()] * 2), recipe("adamw"))
    changed = {
        name for name, value in session.model.state_dict().items() if not torch.equal(value, before.get(name, value))
    }
    assert not {name for name in changed if name.startswith(("bn", "head", "counts"))}
    learn(session, "a", [batch()] * 2, recipe("adamw"))
    assert session.tasks == ("a",)


def test_an_exception_before_the_first_batch_leaves_the_session_usable() -> None:
    session = fh.attach(Net())
    with pytest.raises(ZeroDivisionError), session.task("a"):
        raise ZeroDivisionError
    learn(session, "a", [batch()], recipe("sgd"))
    assert session.tasks == ("a",)


def test_what_needs_the_trace_is_refused_before_it() -> None:
    session = fh.attach(Net())
    with pytest.raises(NoTaskError, match="has not been traced yet"):
        _ = session.graph
    with pytest.raises(BadCallError, match="example_inputs"), session.task("a", num_classes=5):
        pass
    with pytest.raises(NoTaskError, match="run a forward"), session.task("a"):
        pass
    assert session.tasks == ()


def test_a_measure_that_the_traced_model_does_not_allow_is_refused_and_nothing_gated() -> None:
    session = fh.attach(Functional(), SPECS["activation measure"])
    with pytest.raises(CapabilityError, match="hidden"):
        session.model(batch()[0])
    with pytest.raises(NoTaskError):
        _ = session.graph


def test_a_batch_that_the_model_refuses_changes_nothing() -> None:
    session = fh.attach(Net())
    with pytest.raises(TraceError, match="on the example inputs"):
        session.model(torch.zeros(2, 5, 6, 6))
    learn(session, "a", [batch()], recipe("sgd"))
    session.verify()
