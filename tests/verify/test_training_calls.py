"""The dynamic proof: what it refuses, and that it changes nothing of the user's."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import LBFGS, SGD, AdamW

import fgadahat_hooks as fh
from fgadahat_hooks.errors import BadCallError, LeakError, OptimizerError, UnprotectedOptimizerError
from fgadahat_hooks.tasks.random_states import random_state
from tests.support.learning import learn, logits, recipe
from tests.support.small_models import Net, batch
from tests.support.snapshot import content, differences, snapshot
from tests.verify.optimizers import NoHooks, PastTheCounter, Sharpness
from tests.verify.sessions import learnt


# ------------------------------------------------------------------ what is refused
def test_sharpness_aware_optimizers_are_refused_as_in_a_task(session: fh.Session) -> None:
    with pytest.raises(UnprotectedOptimizerError, match=r"SGD is about to step .*task\.protect"):
        session.verify(optimizer=Sharpness)


def test_a_wrapper_without_step_hooks_is_refused_with_the_remedy(session: fh.Session) -> None:
    with pytest.raises(BadCallError, match="NoHooks, a wrapper that runs no step hooks"):
        session.verify(optimizer=lambda groups: NoHooks(SGD(groups)))


def test_a_closure_is_refused_where_gradients_are_needed_before_it() -> None:
    session = learnt({"adjustment": {"mode": "hat", "apply_to": "gradient"}})
    with pytest.raises(OptimizerError, match="with a closure"):
        session.verify(optimizer=lambda g: LBFGS([p for group in g for p in group["params"]]))


class NoStep(SGD):
    """Makes no step."""

    def step(self, closure: Any = None) -> Any:
        return None


WRONG: dict[str, tuple[Any, Any, str]] = {
    "an optimizer": (SGD([torch.zeros(1, requires_grad=True)]), 5, "an object of class SGD"),
    "a name": ("adamw", 5, "an object of class str"),
    "no steps": (SGD, 0, "`steps` to be a whole number of at least 1, but got 0"),
    "half a step": (SGD, 0.5, "but got 0.5"),
    "True steps": (SGD, True, "but got True"),
    "nothing returned": (lambda groups: None, 5, "but it returned NoneType"),
    "not bound": (LBFGS, 5, "raised ValueError"),
    "not an option": (partial(SGD, speed=3), 5, "raised TypeError"),  # type: ignore[call-arg]
    "others": (lambda groups: SGD([torch.zeros(1, requires_grad=True)]), 5, "but it holds other parameters"),
    "no step": (NoStep, 1, "NoStep moved nothing in 1 step"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_calls_are_refused(session: fh.Session, case: str) -> None:
    optimizer, steps, words = WRONG[case]
    with pytest.raises(BadCallError, match=words):
        session.verify(optimizer=optimizer, steps=steps)


def test_the_models_own_parameters_are_refused_before_any_step(session: fh.Session) -> None:
    before = content(session.model.get_parameter("conv1.weight"))
    with pytest.raises(BadCallError, match="it holds other parameters"):
        session.verify(optimizer=lambda groups: SGD([*groups, {"params": [session.model.get_parameter("scale")]}]))
    assert content(session.model.get_parameter("conv1.weight")) == before


def test_a_batch_that_cannot_be_trained_on_is_refused() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(72, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))
    session = fh.attach(model, {}, batch(1)[0])
    learn(session, "a", [batch()], recipe("sgd"))
    session.verify()
    with pytest.raises(BadCallError, match=r"in training mode raised ValueError: Expected more than 1 value.*several"):
        session.verify(optimizer=SGD)
    assert session.verify(batch(4)[0], optimizer=SGD).leaks == {}


class Detached(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = nn.Linear(72, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor, blind: bool = False) -> Tensor:
        logits: Tensor = self.head(self.body(x.flatten(1)).relu())
        return logits.detach() if blind else logits


def test_outputs_without_a_gradient_are_refused() -> None:
    session = learnt(model=Detached(), tasks="a")
    with pytest.raises(BadCallError, match="output with a gradient"):
        session.verify({"x": batch()[0], "blind": True}, optimizer=SGD)


# ------------------------------------------------------------------ what is left unchanged
@pytest.mark.parametrize("ends", ["well", "leak", "refused", "wrong"])
def test_model_session_optimizers_and_random_numbers_are_unchanged(ends: str) -> None:
    session = learnt()
    kept = SGD(session.model.parameters(), lr=0.1, momentum=0.9)
    session.model.get_submodule("bn1").eval()
    before, numbers, expected = snapshot(session.model), random_state(), logits(session, "a", batch()[0])
    session.model.train()
    session.model.get_submodule("bn1").eval()
    optimizer: Any = {"well": AdamW, "leak": PastTheCounter, "refused": Sharpness, "wrong": LBFGS}[ends]
    x = batch(4)[0]
    given = content(x)
    if ends == "well":
        session.verify(x, optimizer=optimizer)
    else:
        with pytest.raises((LeakError, OptimizerError, BadCallError)):
            session.verify(x, optimizer=optimizer)
    assert differences(before, snapshot(session.model)) == []
    assert torch.equal(random_state()["torch"], numbers["torch"])
    assert random_state()["python"]["gauss"] == numbers["python"]["gauss"]
    assert torch.equal(random_state()["numpy"]["key"], numbers["numpy"]["key"])
    assert kept.state == {}
    assert content(x) == given
    assert session.tasks == ("a", "b")
    assert torch.equal(logits(session, "a", batch()[0]), expected)


def test_gives_the_same_report_each_time_and_under_other_modes(session: fh.Session) -> None:
    first = session.verify(optimizer=AdamW, steps=2)
    torch.rand(3)
    with torch.no_grad():
        second = session.verify(optimizer=AdamW, steps=2)
    with torch.inference_mode():
        third = session.verify(optimizer=AdamW, steps=2)
    assert first == second == third


def test_scratch_tasks_get_unused_ids() -> None:
    session = learnt(tasks="")
    for task in ("scratch 1", "scratch 2"):
        learn(session, task, [batch()], recipe("sgd"))
    assert session.verify(optimizer=SGD, steps=1).tasks == ("scratch 1", "scratch 2")


def test_a_model_that_a_forward_left_results_on_is_copied() -> None:
    class StoresOutput(Net):
        def forward(self, x: Tensor) -> Tensor:
            self.last = super().forward(x)
            return self.last

    session = learnt(model=StoresOutput(), tasks="a")
    with session.use("a"):
        session.model(batch()[0])
    assert session.verify(optimizer=SGD, steps=1).leaks == {}
