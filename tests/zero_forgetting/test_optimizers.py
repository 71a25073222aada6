"""Optimizers of torch and of other libraries, new for each task and kept over all: each keeps finished tasks."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

import fgadahat_hooks as fh
from fgadahat_hooks.errors import ProtectedWeightsRestoredWarning, UnprotectedOptimizerError
from tests.support.small import backward, batches, mlp

X = torch.randn(3, 4, dtype=torch.float64)

OWN = "SGD Adam AdamW Adamax NAdam RAdam RMSprop Rprop Adagrad Adadelta ASGD Adafactor".split()
SCHEDULE_FREE = ["SGDScheduleFree", "AdamWScheduleFree", "RAdamScheduleFree"]
OTHERS = (  # as `pytorch_optimizer.load_optimizer` names them
    "a2grad accsgd adabelief adabound adai adalite adamg adamod adamp adan adanorm adapnm adams adasmooth ademamix "
    "adopt aggmo amos apollo came dadaptadam dadaptsgd diffgrad emonavi fira fromage focus galore grams gravity kate "
    "kron lamb laprop lion madgrad mars nero novograd padam pid pnm prodigy qhadam ranger schedulefreesgd "
    "schedulefreeadamw scion sgdp shampoo signsgd sm3 soap srmm stableadamw swats tam tiger yogi"
).split()


def maker(library: str, name: str) -> Callable[..., Optimizer]:
    if library == "torch":
        return getattr(torch.optim, name)  # type: ignore[no-any-return]
    module = pytest.importorskip(library)
    found: Any = getattr(module, name) if library == "schedulefree" else module.load_optimizer(name)
    return found  # type: ignore[no-any-return]


def learn(session: fh.Session, name: str, make: Callable[[Any], Optimizer]) -> None:
    """Learn a task; optimizers that have a mode are told of it, as their authors ask for."""
    with session.task(name) as task:
        optimizer = task.protect(make(session.parameter_groups(lr=0.05, gate_lr=0.01)))
        getattr(optimizer, "train", lambda: None)()
        for batch in task.batches(batches(4, 3, count=6)):
            optimizer.zero_grad()
            backward(session, task, batch)
            optimizer.step()
        getattr(optimizer, "eval", lambda: None)()


def logits(session: fh.Session) -> Tensor:
    with session.use("a"), torch.no_grad():
        return session.model(X)  # type: ignore[no-any-return]


class Scaled(nn.Module):
    """A model with a parameter that is frozen after the first task."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.scale = mlp(4, 8, 6), nn.Parameter(torch.rand(6, dtype=torch.float64))
        self.head = nn.Linear(6, 3, dtype=torch.float64)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(torch.relu(self.body(x)) * self.scale)
        return logits


def learn_three(make: Callable[..., Optimizer], keep: bool) -> None:
    """Learn three tasks, and compare the first after each."""
    session = fh.attach(Scaled(), {"adjustment": {"mode": "hat"}, "rest": "freeze"}, X)
    made: list[Optimizer] = []

    def once(groups: Any) -> Optimizer:
        made[:] = made if keep and made else [make(groups)]
        return made[0]

    learn(session, "a", once)
    before = logits(session)
    for name in "bc":
        moved = session.model.get_parameter("body.0.weight").detach().clone()
        learn(session, name, once)
        assert torch.equal(logits(session), before)
        assert not torch.equal(session.model.get_parameter("body.0.weight"), moved)


ALL = [*(("torch", n) for n in OWN), *(("schedulefree", n) for n in SCHEDULE_FREE)]
ALL += [("pytorch_optimizer", n) for n in OTHERS]


@pytest.mark.parametrize(("library", "name"), ALL, ids=lambda part: part)
def test_no_optimizer_moves_a_finished_task(library: str, name: str) -> None:
    """None is warned of: none writes between its steps what finished tasks read."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of theirs
        warnings.simplefilter("error", ProtectedWeightsRestoredWarning)
        make = maker(library, name)
        for keep in (False, True):
            learn_three(make, keep)


@pytest.mark.parametrize("keep", [False, True])
def test_an_average_under_another_name_is_put_back_and_told(keep: bool) -> None:
    """SPlus sets the weights to an average of its own in `eval()`."""
    make = maker("pytorch_optimizer", "splus")
    with pytest.warns(ProtectedWeightsRestoredWarning, match="moves weights between its steps"):
        learn_three(make, keep)


def test_an_optimizer_that_steps_another_one_inside_is_refused() -> None:
    with pytest.raises(UnprotectedOptimizerError, match="AdamW is about to step"):
        learn_three(maker("pytorch_optimizer", "magma"), False)


def test_there_are_sixty() -> None:
    assert len(ALL) >= 60
