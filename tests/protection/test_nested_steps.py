"""Optimizers whose `step` calls `super().step()`: finished tasks are protected from what they add to it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.optim import SGD, AdamW

import fgadahat_hooks as fh
from tests.support.learning import gates
from tests.support.small import Make, backward, batches, learn, mlp, train


class After(SGD):
    """Moves everything after its base has."""

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        result = super().step(closure)
        for group in self.param_groups:
            for p in group["params"]:
                p.add_(0.01 * (p.grad is not None))
        return result


class Before(SGD):
    """Moves everything before its base does."""

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        for group in self.param_groups:
            for p in group["params"]:
                p.add_(0.01 * (p.grad is not None))
        return super().step(closure)


class Twice(After):
    """Steps within a step within a step."""

    def step(self, closure: Any = None) -> Any:
        super().step(closure)
        return super().step(closure)


class Failing(After):
    """Raises in the middle of its first step."""

    failed = False

    def step(self, closure: Any = None) -> Any:
        if not self.failed:
            self.failed = True
            SGD.step(self, closure)
            raise MemoryError
        return super().step(closure)


def make(kind: type[SGD]) -> Make:
    SGD([torch.zeros(1, requires_grad=True)])  # from now on the hooks of the base are called as well
    return lambda groups: kind(groups, momentum=0.9, weight_decay=0.1)


def learnt() -> tuple[fh.Session, dict[str, torch.Tensor]]:
    session = fh.attach(mlp(4, 12, 12, 3), {}, batches(4, 3)[0][0])
    learn(session, "a", batches(4, 3))
    used = session.masks("a")["2"]
    assert 0 < int(used.sum()) < 12
    weight = session.model.get_parameter("2.weight").detach().clone()
    return session, {"2.weight": weight}


def protected(session: fh.Session) -> torch.Tensor:
    return session.masks("a")["2"][:, None] & session.masks("a")["0"][None]


@pytest.mark.parametrize("kind", [After, Before, Twice])
def test_what_a_subclass_adds_to_the_step_cannot_move_protected_weights(kind: type[SGD]) -> None:
    session, before = learnt()
    with session.task("b") as task:
        train(session, task, task.protect(make(kind)(session.parameter_groups(lr=0.1, gate_lr=0.01))), batches(4, 3))
        assert task.steps == 2
    now = session.model.get_parameter("2.weight")
    moved = now != before["2.weight"]
    assert not (moved & protected(session)).any()
    assert bool((moved | protected(session)).all())


def test_a_step_that_raised_does_not_look_like_an_outer_one() -> None:
    session, before = learnt()
    with session.task("b") as task:
        optimizer = task.protect(make(Failing)(session.parameter_groups(lr=0.1, gate_lr=0.01)))
        task.anneal(1, 1)
        for expected in (0, 1, 2):
            optimizer.zero_grad()
            backward(session, task, batches(4, 3)[0])
            if expected == 0:
                with pytest.raises(MemoryError):
                    optimizer.step()
            else:
                optimizer.step()
            assert task.steps == expected
    assert not ((session.model.get_parameter("2.weight") != before["2.weight"]) & protected(session)).any()


def test_fused_sgd_keeps_its_momentum_from_task_to_task() -> None:
    session = fh.attach(mlp(4, 12, 12, 3), {}, batches(4, 3)[0][0])
    optimizer = None
    for name in "abc":
        with session.task(name) as task:
            groups = session.parameter_groups(lr=0.1, gate_lr=0.01, momentum=0.9, fused=True)
            optimizer = SGD(groups) if optimizer is None else optimizer
            train(session, task, task.protect(optimizer), batches(4, 3))
    assert optimizer is not None
    assert all(optimizer.state[p]["momentum_buffer"] is not None for p in session.model.parameters())
    assert session.verify(optimizer=AdamW, steps=1).leaks == {}
    assert gates(session)
