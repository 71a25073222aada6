"""Faults while a task is learnt: it works or raises an error of ours, and nothing is half done."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.optim import AdamW, Optimizer

import fgadahat_hooks as fh
from fgadahat_hooks.errors import (
    BadCallError,
    DetachedError,
    NonFiniteError,
    TaskRunningError,
    TraceError,
    UnprotectedOptimizerError,
)
from tests.support.saving import SPEC, Net, example, loader

SPECS: dict[str, Any] = {"importance": SPEC, "hat": {"adjustment": {"mode": "hat"}}}
Change = Callable[[fh.Session, fh.Task, int], Any]


def nothing(*_: Any) -> None:
    return None


def optimizer_of(session: fh.Session) -> Optimizer:
    return AdamW(session.parameter_groups(lr=0.01))


def train(
    session: fh.Session, task: fh.Task, optimizer: Optimizer, before: Change = nothing, between: Change = nothing
) -> None:
    """Learn one epoch; `before` acts before the forward of each batch, `between` before the optimizer's step."""
    for number, (x, y) in enumerate(task.batches(loader(0, 3))):
        session.model.train()
        optimizer.zero_grad()
        factor = before(session, task, number) or 1.0
        logits = session.model(x.to(next(session.model.parameters())))
        ((cross_entropy(logits, y) + task.regularization()) * factor).backward()
        between(session, task, number)
        optimizer.step()


def learnt(spec: Any = None, callbacks: list[fh.Callback] | None = None) -> fh.Session:
    """Return a session that has learnt one task."""
    session = fh.attach(Net(), SPEC if spec is None else spec, example(), callbacks)
    with session.task("first") as task:
        train(session, task, task.protect(optimizer_of(session)))
    return session


def logits(session: fh.Session) -> torch.Tensor:
    x = torch.randn(7, 6, generator=torch.Generator().manual_seed(3))
    session.model.eval()
    with torch.no_grad(), session.use("first"):
        return session.model(x)  # type: ignore[no-any-return]


def assert_first_task_is_whole(session: fh.Session, before: torch.Tensor) -> None:
    """Assert that the first task is as it was, and that the next one can be learnt."""
    assert session.tasks == ("first",)
    assert torch.equal(logits(session), before)
    with session.task("afterwards") as task:
        train(session, task, task.protect(optimizer_of(session)))
    assert torch.equal(logits(session), before)
    session.verify()


# ------------------------------------------------------------------ numbers
@pytest.mark.parametrize("spec", SPECS)
def test_a_loss_that_is_nan_stores_nothing(spec: str) -> None:
    session = learnt(SPECS[spec])
    before = logits(session)
    with pytest.raises(NonFiniteError), session.task("x") as task:
        train(session, task, task.protect(optimizer_of(session)), before=lambda *_: float("nan"))
    assert_first_task_is_whole(session, before)


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("value", [float("inf"), float("-inf"), float("nan")])
def test_gradients_that_are_not_finite_store_nothing(spec: str, value: float) -> None:
    session = learnt(SPECS[spec])
    before = logits(session)

    def spoil(session: fh.Session, _: fh.Task, number: int) -> None:
        grad = session.model.get_parameter("4.weight").grad
        if number == 1 and grad is not None:
            grad.fill_(value)

    with pytest.raises(NonFiniteError), session.task("x") as task:
        train(session, task, task.protect(optimizer_of(session)), between=spoil)
    assert_first_task_is_whole(session, before)


def test_a_loss_that_is_nan_in_the_first_task_leaves_the_weights_as_they_were_before() -> None:
    session = fh.attach(Net(), SPECS["hat"], example())
    before = {name: value.clone() for name, value in session.model.state_dict().items()}
    with pytest.raises(NonFiniteError), session.task("x") as task:
        train(session, task, task.protect(optimizer_of(session)), before=lambda *_: float("nan"))
    after = session.model.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())
    with session.task("first") as task:
        train(session, task, task.protect(optimizer_of(session)))


# ------------------------------------------------------------------ what others raise
OUT_OF_MEMORY: tuple[Exception, ...] = (
    MemoryError("no memory"),
    torch.OutOfMemoryError("CUDA out of memory."),
    RuntimeError("out of memory"),
)


@pytest.mark.parametrize("error", OUT_OF_MEMORY, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("measure", ["conductance_abs", "activation_abs"])
def test_memory_that_runs_out_while_importance_is_measured(
    monkeypatch: pytest.MonkeyPatch, error: Exception, measure: str
) -> None:
    session = learnt({"adjustment": {"mode": "fg_adahat", "intensity": 1.5e-7}, "importance": {"type": measure}})
    before, modes = logits(session), [m.training for m in session.model.modules()]
    hooks = count_hooks(session.model)
    found = next(c for c in session.callbacks if isinstance(c, fh.ImportanceCallback)).measure

    def fail(*_: Any, **__: Any) -> Any:
        raise error

    with monkeypatch.context() as patched:
        patched.setattr(found, "compute", fail)
        with pytest.raises(type(error)) as caught, session.task("x") as task:
            train(session, task, task.protect(optimizer_of(session)))
        assert caught.value is error  # a loop that halves its batch catches this very class
    assert count_hooks(session.model) == hooks
    session.model.eval()
    assert [m.training for m in session.model.modules()] == modes
    assert_first_task_is_whole(session, before)


def count_hooks(model: nn.Module) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) + len(m._backward_hooks) for m in model.modules())


class Fails(fh.Callback):
    """Raises at one of its events, once it is armed."""

    def __init__(self, event: str) -> None:
        self.event = event
        self.armed = False

    def _fail(self, event: str) -> None:
        if self.armed and event == self.event:
            raise ZeroDivisionError(event)

    def on_task_start(self, context: fh.TaskContext) -> None:
        self._fail("on_task_start")

    def on_train_batch_start(self, context: fh.TaskContext) -> None:
        self._fail("on_train_batch_start")

    def on_before_optimizer_step(self, context: fh.TaskContext, optimizer: Optimizer) -> None:
        self._fail("on_before_optimizer_step")

    def on_after_optimizer_step(self, context: fh.TaskContext, optimizer: Optimizer) -> None:
        self._fail("on_after_optimizer_step")

    def on_train_batch_end(self, context: fh.TaskContext) -> None:
        self._fail("on_train_batch_end")

    def on_task_end(self, context: fh.TaskContext) -> None:
        self._fail("on_task_end")


EVENTS = tuple(name for name in vars(Fails) if name.startswith("on_"))


@pytest.mark.parametrize("event", EVENTS)
@pytest.mark.parametrize("priority", [5, 50, 95])
def test_an_exception_in_a_users_callback(event: str, priority: int) -> None:
    callback = Fails(event)
    callback.priority = priority  # type: ignore[misc]  # an instance may set its own
    session = learnt(SPECS["hat"], [callback, fh.GradientAdjustCallback()])
    before = logits(session)
    callback.armed = True
    with pytest.raises(ZeroDivisionError, match=event), session.task("x") as task:
        train(session, task, task.protect(optimizer_of(session)))
    callback.armed = False
    assert_first_task_is_whole(session, before)


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("in a step"), KeyboardInterrupt()], ids=["memory", "ctrl-c"])
@pytest.mark.parametrize("spec", SPECS)
def test_a_step_that_breaks_off_half_way(spec: str, error: BaseException) -> None:
    class Breaks(torch.optim.SGD):
        def step(self, closure: Any = None) -> Any:
            super().step(closure)
            raise error

    session = learnt(SPECS[spec])
    before = logits(session)
    with pytest.raises(type(error)), session.task("x") as task:
        train(session, task, task.protect(Breaks(session.parameter_groups(lr=0.1))))
    assert_first_task_is_whole(session, before) if spec == "hat" else session.verify()
    assert torch.equal(logits(session), before)


# ------------------------------------------------------------------ the model changes under the session
@pytest.mark.parametrize("place", ["4", "1"])
@pytest.mark.parametrize("when", ["between", "inside"])
def test_a_layer_that_is_replaced_is_reported(place: str, when: str) -> None:
    session = learnt()
    before = logits(session)
    old = session.model.get_submodule(place)
    new = nn.Linear(12, 8) if place == "4" else nn.BatchNorm1d(12)

    def replace(*_: Any) -> None:
        setattr(session.model, place, new)

    message = f"Layer '{place}' was replaced after attach"
    if when == "between":
        replace()
        for call in (lambda: session.task("x"), lambda: session.use("first"), session.verify, session.state_dict):
            with pytest.raises(DetachedError, match=message):
                call()
    else:
        with pytest.raises(DetachedError, match=message), session.task("x") as task:
            train(session, task, task.protect(optimizer_of(session)), before=replace)
    setattr(session.model, place, old)
    assert_first_task_is_whole(session, before)


def test_a_head_may_be_replaced_between_tasks() -> None:
    session = learnt()
    before = logits(session)
    session.model[6] = nn.Linear(8, 3)  # type: ignore[operator]
    assert_first_task_is_whole(session, before)


def test_an_optimizer_that_is_rebuilt_must_be_protected() -> None:
    session = learnt()
    before = logits(session)
    with session.task("x") as task:
        train(session, task, task.protect(optimizer_of(session)))
        with pytest.raises(UnprotectedOptimizerError, match="Nothing was changed"):
            train(session, task, optimizer_of(session))
        train(session, task, task.protect(optimizer_of(session)))
    assert torch.equal(logits(session), before)
    session.verify()


def test_a_model_that_is_cast_within_a_task_is_refused() -> None:
    session = learnt()
    with pytest.raises(TaskRunningError, match="Cast the model before a task begins"), session.task("x") as task:
        train(session, task, task.protect(optimizer_of(session)), before=lambda s, *_: s.model.double() and None)
    assert session.tasks == ("first",)


def test_the_step_itself_sees_that_the_model_was_cast() -> None:
    session = learnt()
    with session.task("x") as task:
        optimizer = task.protect(optimizer_of(session))
        task.anneal(1, 1)
        session.model.double()
        session.model(example().double()).sum().backward()
        with pytest.raises(TaskRunningError, match="Cast the model"):
            optimizer.step()


def test_a_model_may_be_cast_between_tasks() -> None:
    session = learnt()
    session.model.double()
    with pytest.raises(TraceError, match="raised RuntimeError on the example inputs"):
        session.verify()
    with session.task("x") as task:
        train(session, task, task.protect(optimizer_of(session)))
    session.verify(example().double())


def test_a_model_without_values_is_refused() -> None:
    session = learnt()
    session.model.to("meta")
    with pytest.raises(BadCallError, match="it is on the meta device"), session.task("x"):
        pass


def test_a_second_detach_does_nothing_and_everything_else_is_refused() -> None:
    session = learnt()
    model = session.detach()
    assert session.detach() is model
    for call in (lambda: session.task("x"), lambda: session.use("first"), session.state_dict, session.verify):
        with pytest.raises(DetachedError), suppress(TypeError):
            call()
    fh.attach(model, SPEC, example())
