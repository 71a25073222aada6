"""Execution paths that differ by chance, by recomputing, by an exception, or in the samples of one batch."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from fgadahat_hooks.graph.trace import trace_again
from tests.support.branch_models import (
    CLASSES,
    Base,
    OtherActivation,
    Swapped,
    attached,
    batch,
    learn,
    task_logits,
)


class LayerDrop(nn.Module):
    """Leaves layers out at random in training, as language and speech models do."""

    always = False

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Linear(3 * 64, 12)
        self.blocks = nn.ModuleList(nn.Sequential(nn.Linear(12, 12), nn.ReLU(), nn.Linear(12, 12)) for _ in range(4))
        self.head = nn.Linear(12, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        h = self.stem(x.flatten(1))
        for block in self.blocks:
            if not (self.training or self.always) or random.random() < 0.5:  # noqa: S311  # no secret
                h = h + block(h)
        logits: Tensor = self.head(h)
        return logits


def test_layers_left_out_in_training_cost_no_plasticity() -> None:
    random.seed(0)
    session = attached(LayerDrop())
    resolved = {name: inputs.resolved for name, inputs in session.graph.inputs.items()}
    learn(session, "a", (1, -1), steps=6)
    before = task_logits(session, "a", 1)
    learn(session, "b", (1, -1), steps=6)
    assert torch.equal(before, task_logits(session, "a", 1))
    assert {name: inputs.resolved for name, inputs in session.graph.inputs.items()} == resolved
    watch = session._sequence.branches
    assert watch is not None
    assert watch.pending == []


def test_layers_left_out_in_training_are_traced_a_few_times_only(monkeypatch: pytest.MonkeyPatch) -> None:
    random.seed(0)
    traces: list[int] = []

    def counted(*args: Any) -> Any:
        traces.append(1)
        return trace_again(*args)

    monkeypatch.setattr("fgadahat_hooks.tasks.branches.trace_again", counted)
    session = attached(LayerDrop())
    session.model.train()
    for _ in range(60):
        session.model(batch(1))
        _ = session.graph
    assert len(traces) == 8


def test_nothing_is_promised_of_what_evaluation_does_at_random() -> None:
    random.seed(3)
    model = LayerDrop()
    session = attached(model)
    assert session.graph.inputs["head"].resolved == 1.0
    model.always = True
    for _ in range(20):
        model.eval()(batch(1))
    assert session.graph.inputs["head"].resolved == 0.0


class Checkpointed(Base):
    def forward(self, x: Tensor) -> Tensor:
        h: Any = checkpoint(self.usual, x, use_reentrant=False)
        return self.finish(h)


def test_recomputed_parts_are_no_new_path() -> None:
    session = attached(Checkpointed())
    watch = session._sequence.branches
    assert watch is not None
    with session.task("a") as task:
        task.anneal(1, 1)
        for _ in range(2):
            session.model.train()(batch(1).requires_grad_()).sum().backward()
            assert watch.pending == []


def test_an_exception_in_the_forward_leaves_no_pending_path() -> None:
    session = attached(OtherActivation())
    watch = session._sequence.branches
    assert watch is not None
    with pytest.raises(RuntimeError):
        session.model.eval()(torch.zeros(2, 5, 8, 8))
    assert watch.pending == []
    session.model(batch(1))
    assert watch.pending == []


@pytest.mark.parametrize("kind", [OtherActivation, Swapped])
def test_mixed_batches_are_no_new_path(kind: type[Base]) -> None:
    session = attached(kind())
    for task in "ab":
        learn(session, task, (1,), steps=1)
    watch = session._sequence.branches
    assert watch is not None
    with torch.no_grad(), session.use(["a", "b", "a", "b", "a", "a"]):
        session.model.eval()(batch(1))
    assert watch.pending == []
    with torch.no_grad(), session.use(["a", "b", "a", "b", "a", "a"]):
        session.model.eval()(batch(-1))
    assert len(watch.pending) == 1
