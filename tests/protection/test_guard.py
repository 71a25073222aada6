"""The guard refuses every unprotected step of its own model, and of no other model."""

from __future__ import annotations

import copy
import gc
import weakref

import pytest
import torch
from torch import nn
from torch.optim.optimizer import _global_optimizer_pre_hooks

import fgadahat_hooks as fh
from fgadahat_hooks.errors import UnprotectedOptimizerError
from tests.support.small import backward, batches, learn, mlp, sgd, snapshot

X = torch.randn(2, 4, dtype=torch.float64)


def attached() -> fh.Session:
    return fh.attach(mlp(4, 5, 3), {}, X)


def stepping(model: nn.Module) -> torch.optim.Optimizer:
    """Return an optimizer of a model, with gradients to step on."""
    for p in model.parameters():
        p.grad = torch.ones_like(p)
    return torch.optim.SGD(model.parameters(), lr=0.1)


def test_before_the_first_task_any_optimizer_may_train() -> None:
    session = attached()
    before = snapshot(session.model)
    stepping(session.model).step()
    assert any(not torch.equal(v, before[n]) for n, v in snapshot(session.model).items())


@pytest.mark.parametrize("part", ["0.weight", "0.bias", "2.bias", "0.hat_gate.embedding"])
def test_one_parameter_is_enough_to_be_refused(part: str) -> None:
    session = attached()
    learn(session, "a", batches(4, 3))
    parameter = session.model.get_parameter(part)
    parameter.grad = torch.ones_like(parameter)
    before = parameter.detach().clone()
    with pytest.raises(UnprotectedOptimizerError, match="outside any task"):
        torch.optim.SGD([nn.Parameter(torch.zeros(1)), parameter], lr=0.1).step()
    with session.task("b"), pytest.raises(UnprotectedOptimizerError, match="inside task 'b'"):
        torch.optim.SGD([nn.Parameter(torch.zeros(1)), parameter], lr=0.1).step()
    if "gate" not in part and not part.startswith("2"):
        assert torch.equal(parameter, before)


def test_an_optimizer_protected_in_one_task_is_not_in_the_next() -> None:
    session = attached()
    with session.task("a") as task:
        optimizer = task.protect(sgd(session.parameter_groups(lr=0.1)))
        assert task.protects(optimizer)
        task.anneal(1, 2)
        backward(session, task, batches(4, 3)[0])
        optimizer.step()
    assert not task.protects(stepping(session.model))
    with pytest.raises(UnprotectedOptimizerError, match="outside any task"):
        optimizer.step()
    with session.task("b") as task:
        assert not task.protects(optimizer)
        with pytest.raises(UnprotectedOptimizerError, match="inside task 'b'"):
            optimizer.step()
        task.protect(optimizer)
        task.anneal(1, 2)
        optimizer.step()


def test_other_models_are_left_alone() -> None:
    session, other = attached(), nn.Linear(2, 2)
    learn(session, "a", batches(4, 3))
    stepping(other).step()
    with session.task("b"):
        stepping(other).step()


def test_two_attached_models_do_not_see_each_other() -> None:
    first, second = attached(), attached()
    learn(first, "a", batches(4, 3))
    learn(second, "a", batches(4, 3))
    with first.task("b"):
        learn(second, "b", batches(4, 3))
        with pytest.raises(UnprotectedOptimizerError, match="inside task 'b'"):
            stepping(first.model).step()
        with pytest.raises(UnprotectedOptimizerError, match="outside any task"):
            stepping(second.model).step()


def test_a_copy_may_be_trained() -> None:
    """Training a copy of the model cannot change finished tasks of this one."""
    session = attached()
    learn(session, "a", batches(4, 3))
    stepping(copy.deepcopy(session.model)).step()


def test_detach_removes_the_guard() -> None:
    gc.collect()
    attached().detach()
    count = len(_global_optimizer_pre_hooks)
    session = attached()
    assert len(_global_optimizer_pre_hooks) == count + 1
    learn(session, "a", batches(4, 3))
    stepping(session.detach()).step()
    assert len(_global_optimizer_pre_hooks) == count


def test_the_guard_of_a_deleted_session_does_nothing_until_the_next_one_removes_it() -> None:
    gc.collect()
    attached().detach()  # removes the guards that earlier tests left
    count = len(_global_optimizer_pre_hooks)
    session = attached()
    learn(session, "a", batches(4, 3))
    model = weakref.ref(session.model)
    del session
    gc.collect()
    assert model() is None
    stepping(mlp(4, 5, 3)).step()
    attached().detach()
    assert len(_global_optimizer_pre_hooks) == count


def test_a_failed_attach_leaves_no_guard() -> None:
    gc.collect()
    count = len(_global_optimizer_pre_hooks)
    with pytest.raises(fh.FgadahatError):
        fh.attach(mlp(4, 5, 3), {"gates": {"targets": "nothing"}}, X)
    assert len(_global_optimizer_pre_hooks) == count
