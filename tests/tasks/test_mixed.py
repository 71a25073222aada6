"""One task id per sample: every row is bit-equal to that of its own task on the whole batch."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import fgadahat_hooks as fh
from tests.support.learning import learn, logits, recipe
from tests.support.small_models import Functional, Net, TwoHeads, batch

IDS = ["a", "b", "a", "c", "c", "b", "a", "b"]


def learnt(model: nn.Module, classes: tuple[int | None, ...] = (None, None, None)) -> fh.Session:
    session = fh.attach(model, None, batch(1)[0])
    x, y = batch()
    for task, number in zip("abc", classes, strict=True):
        learn(session, task, [(x, y % (number or 3))] * 2, recipe("adamw"), num_classes=number)
    return session


def expected(session: fh.Session, x: Tensor) -> Tensor:
    each = {task: logits(session, task, x) for task in session.tasks}
    return torch.stack([each[task][row] for row, task in enumerate(IDS)])


@pytest.mark.parametrize("kind", [Net, Functional])
def test_rows_are_those_of_their_tasks(kind: type[nn.Module]) -> None:
    session, x = learnt(kind()), batch(seed=9)[0]
    assert torch.equal(logits(session, IDS, x), expected(session, x))
    assert torch.equal(logits(session, tuple(IDS), x), expected(session, x))
    assert torch.equal(logits(session, ["b"] * 8, x), logits(session, "b", x))


def test_ids_may_be_a_tensor() -> None:
    session = fh.attach(Net(), None, batch(1)[0])
    for task in (0, 1):
        learn(session, task, [batch(seed=task)], recipe("adamw"))
    x, ids = batch()[0], torch.tensor([0, 1] * 4)
    mixed: Any = ids
    assert torch.equal(logits(session, mixed, x)[::2], logits(session, 0, x)[::2])
    assert torch.equal(logits(session, mixed, x)[1::2], logits(session, 1, x)[1::2])
    one: Any = torch.tensor(1)
    assert torch.equal(logits(session, one, x), logits(session, 1, x))


def test_narrower_heads_are_padded_with_minus_infinity() -> None:
    session, x = learnt(Net(), (2, 5, 3)), batch(seed=9)[0]
    out = logits(session, IDS, x)
    assert out.shape == (8, 5)
    for row, task in enumerate(IDS):
        own = logits(session, task, x)[row]
        assert torch.equal(out[row, : len(own)], own)
        assert (out[row, len(own) :] == -torch.inf).all()


def test_outputs_may_be_dicts() -> None:
    session, x = fh.attach(TwoHeads(), None, batch(1)[0]), batch()[0]
    for task in "abc":
        with session.task(task) as running:
            running.anneal(1, 1)
    with torch.no_grad(), session.use(IDS):
        out = session.model(x)
    for row, task in enumerate(IDS):
        with torch.no_grad(), session.use(task):
            own = session.model(x)
        assert all(torch.equal(out[name][row], own[name][row]) for name in ("left", "right"))


def test_the_users_own_hooks_act_once_on_the_whole_batch() -> None:
    model = Net()
    session = learnt(model)
    model.register_forward_pre_hook(lambda _, args: (2 * args[0],))
    model.register_forward_hook(lambda _, __, out: out.softmax(1))
    x = batch(seed=9)[0]
    assert torch.equal(logits(session, IDS, x), expected(session, x))


def test_gradients_reach_every_sample() -> None:
    session, x = learnt(Net()), batch(seed=9)[0].requires_grad_()
    with session.use(IDS):
        session.model.eval()(x).sum().backward()
    assert x.grad is not None
    assert x.grad.flatten(1).any(1).all()


def test_nothing_stays_after_the_block_or_an_exception() -> None:
    session, x = learnt(Net()), batch()[0]
    a = logits(session, "a", x)
    hooks = len(session.model._forward_hooks)
    with pytest.raises(ZeroDivisionError), session.use("a"), session.use(IDS):
        raise ZeroDivisionError
    with session.use("a"):
        with session.use(IDS):
            session.model(x)
        assert torch.equal(session.model(x), a)
    assert len(session.model._forward_hooks) == hooks
