"""What joins the model after attach, leaves it, or is replaced; and gates that are frozen with their layers."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import fgadahat_hooks as fh
from fgadahat_hooks.errors import LearningWarning, ModelChangedError
from tests.support.small import aborted, batches, learn, mlp, sgd

X = torch.randn(3, 4, dtype=torch.float64)
DATA = batches(4, 3)


class Net(nn.Module):
    """Has a table that a forward reads, and a buffer that a forward makes."""

    def __init__(self, lazy: bool = False) -> None:
        super().__init__()
        self.body, self.head = mlp(4, 8, 6), nn.Linear(6, 3, dtype=torch.float64)
        self.table, self.lazy = nn.Embedding(5, 6, dtype=torch.float64), lazy

    def forward(self, x: Tensor) -> Tensor:
        h = torch.relu(self.body(x)) + self.table.weight[0]
        if self.training and self.lazy:
            self.register_buffer("seen", h.detach().mean(0))
        logits: Tensor = self.head(h + getattr(self, "seen", 0))
        return logits


def learnt(model: nn.Module) -> tuple[fh.Session, Any]:
    session = fh.attach(model, {"adjustment": {"mode": "hat"}, "gates": {"exclude": ["table"]}}, X)
    learn(session, "a", DATA)
    return session, model


def logits(session: fh.Session, task: str) -> Tensor:
    with session.use(task), torch.no_grad():
        return session.model(X)  # type: ignore[no-any-return]


def add_parameter(model: Any) -> None:
    model.body.scale = nn.Parameter(torch.zeros(6))


def add_module(model: Any) -> None:
    model.body.append(nn.Linear(6, 6, dtype=torch.float64))


def add_buffer(model: Any) -> None:
    model.register_buffer("count", torch.zeros(2))


def remove_module(model: Any) -> None:
    del model.table


def replace_head(model: Any) -> None:
    model.head = nn.Linear(6, 5, dtype=torch.float64)


def resize_table(model: Any) -> None:
    model.table = nn.Embedding(7, 6, dtype=torch.float64)


CHANGES = {
    add_parameter: r"'body\.scale' is not in the model when it was attached",
    add_module: r"'body\.3\.weight' and 1 more are not in the model when",
    add_buffer: "'count' is not in the model",
    remove_module: r"'table\.weight' is gone from the model",
    replace_head: r"Head 'head' was replaced by one of another shape.*num_classes",
    resize_table: r"'table\.weight' is of another shape than when the last task ended",
}


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_a_change_of_the_model_is_an_error_at_the_next_task_and_in_use(change: Any) -> None:
    session, model = learnt(Net())
    change(model)
    with pytest.raises(ModelChangedError, match=CHANGES[change]), session.task("b"):
        pass
    with pytest.raises(ModelChangedError, match=CHANGES[change]):
        logits(session, "a")
    assert session.tasks == ("a",)


def test_what_is_undone_is_no_change() -> None:
    session, model = learnt(Net())
    before, head = logits(session, "a"), model.head
    replace_head(model)
    model.head = head
    learn(session, "b", DATA)
    assert torch.equal(logits(session, "a"), before)


def test_a_buffer_that_the_first_task_makes_is_stored_for_each_task() -> None:
    session, _ = learnt(Net(lazy=True))
    assert {policy.name: policy.protection for policy in session.plan.tensors}["seen"] == "per_task"
    session.model.eval()
    before = logits(session, "a")
    session.model.train()
    learn(session, "b", DATA)
    session.model.eval()
    assert torch.equal(logits(session, "a"), before)


def test_gates_that_are_frozen_with_their_layers_are_told_and_learn() -> None:
    session = fh.attach(mlp(4, 8, 6, 3), {}, X)
    session.model.requires_grad_(False)
    before = {name: value.detach().clone() for name, value in session.embeddings.items()}

    def everything(_: Any) -> Any:
        return sgd([{"params": list(session.model.parameters()), "lr": 0.1}])

    with pytest.warns(LearningWarning, match="The gate of layer '0' and 1 more had been frozen"):
        learn(session, "a", DATA, everything)
    assert any(not torch.equal(value, before[name]) for name, value in session.embeddings.items())


def test_gates_by_share_need_not_learn() -> None:
    session = fh.attach(mlp(4, 8, 6, 3), fh.preset("hat", tasks=2), X)
    session.model.get_submodule("0").requires_grad_(False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with aborted(session, "a") as task:
            task.begin_batch(1, 1)
