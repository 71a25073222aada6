"""Events: which are called, in what order, and with what context."""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations
from typing import Any

import pytest
import torch
from torch.optim import Optimizer

import fgadahat_hooks as fh
from fgadahat_hooks.callbacks import CallbackList
from fgadahat_hooks.errors import DuplicateNameError
from tests.support.small import aborted, backward, batches, learn, mlp, sgd, snapshot, train

EVENTS = (
    "on_task_start",
    "on_train_batch_start",
    "on_before_optimizer_step",
    "on_after_optimizer_step",
    "on_train_batch_end",
    "on_task_end",
    "on_task_abort",
)
A_BATCH = ["on_train_batch_start", "on_before_optimizer_step", "on_after_optimizer_step", "on_train_batch_end"]
X = torch.randn(2, 4, dtype=torch.float64)


class Recorder(fh.Callback):
    """Appends every event to a list."""

    def __init__(self, name: str, log: list[tuple[str, str]], priority: int = 50) -> None:
        self.name, self.log = name, log
        self.priority = priority  # type: ignore[misc]

    def note(self, event: str) -> None:
        self.log.append((self.name, event))

    def on_task_start(self, context: fh.TaskContext) -> None:
        self.note("on_task_start")

    def on_train_batch_start(self, context: fh.TaskContext) -> None:
        self.note("on_train_batch_start")

    def on_before_optimizer_step(self, context: fh.TaskContext, optimizer: Optimizer) -> None:
        self.note("on_before_optimizer_step")

    def on_after_optimizer_step(self, context: fh.TaskContext, optimizer: Optimizer) -> None:
        self.note("on_after_optimizer_step")

    def on_train_batch_end(self, context: fh.TaskContext) -> None:
        self.note("on_train_batch_end")

    def on_task_end(self, context: fh.TaskContext) -> None:
        self.note("on_task_end")

    def on_task_abort(self, context: fh.TaskContext) -> None:
        self.note("on_task_abort")

    @property
    def state_key(self) -> str:
        return self.name


def events(log: list[tuple[str, str]]) -> list[str]:
    return [event for _, event in log]


def test_a_task_gives_its_events_in_order() -> None:
    log: list[tuple[str, str]] = []
    session = fh.attach(mlp(4, 5, 3), {}, X, [Recorder("mine", log)])
    learn(session, "a", batches(4, 3, count=2))
    assert events(log) == ["on_task_start", *A_BATCH, *A_BATCH, "on_task_end"]


def test_a_task_left_by_an_exception_is_aborted_not_ended() -> None:
    log: list[tuple[str, str]] = []
    session = fh.attach(mlp(4, 5, 3), {}, X, [Recorder("mine", log)])
    with aborted(session, "a"):
        pass
    assert events(log) == ["on_task_start", "on_task_abort"]
    assert session.tasks == ()


def test_without_example_inputs_the_task_starts_with_the_first_forward() -> None:
    log: list[tuple[str, str]] = []
    session = fh.attach(mlp(4, 5, 3), {}, callbacks=[Recorder("mine", log)])
    learn(session, "a", batches(4, 3, count=2))
    first = ["on_task_start", *A_BATCH[1:]]
    assert events(log) == [*first, *A_BATCH, "on_task_end"]


def test_callbacks_are_called_in_rising_priority_equal_ones_as_given() -> None:
    log: list[tuple[str, str]] = []
    priorities = {"late": 99, "b": 50, "early": 1, "a": 50}
    session = fh.attach(mlp(4, 5, 3), {}, X, [Recorder(n, log, p) for n, p in priorities.items()])
    with session.task("t"):
        pass
    started = [name for name, event in log if event == "on_task_start"]
    assert started == ["early", "b", "a", "late"]


def test_built_in_callbacks_are_sorted_whatever_the_list() -> None:
    built_in = [fh.GradientAdjustCallback(), fh.SummationCallback(), fh.Callback(), fh.ImportanceCallback()]
    keys = [callback.state_key for callback in CallbackList(built_in).items]
    assert keys == ["importance", "summation", "Callback", "gradient_adjust"]
    adjusted = [fh.ImportanceCallback({"gradient": "adjusted"}), fh.SummationCallback(), fh.GradientAdjustCallback()]
    keys = [callback.state_key for callback in CallbackList(adjusted).items]
    assert keys == ["summation", "gradient_adjust", "importance"]


@pytest.mark.parametrize("gradient", ["raw", "adjusted"])
def test_importance_is_there_when_it_is_summed(gradient: str) -> None:
    """Importance of adjusted gradients is measured last in a step, yet its task ends before the sum is made."""
    observed: list[Any] = []

    class Observer(fh.Callback):
        def on_task_end(self, context: fh.TaskContext) -> None:
            observed.append((set(context.record.importance), set(context.summed_importance or {})))

    spec = {"adjustment": {"mode": "fg_adahat"}}
    callbacks: list[fh.Callback] = [
        fh.ImportanceCallback({"gradient": gradient}),
        fh.SummationCallback(),
        fh.GradientAdjustCallback(spec["adjustment"]),
        Observer(),
    ]
    session = fh.attach(mlp(4, 5, 3), spec, X, callbacks)
    learn(session, "a", batches(4, 3))
    assert observed == [({"0"}, {"0"})]
    assert session.capacity() < 1


def test_default_callbacks_protect_with_adjusted_gradients_too() -> None:
    spec = {"adjustment": {"mode": "fg_adahat"}, "importance": {"gradient": "adjusted"}}
    session = fh.attach(mlp(4, 5, 3), spec, X)
    learn(session, "a", batches(4, 3))
    assert session.capacity() < 1


def test_two_callbacks_of_one_key_are_refused() -> None:
    with pytest.raises(DuplicateNameError) as caught:
        CallbackList([fh.SummationCallback(), fh.SummationCallback(), fh.Callback(), fh.Callback()])
    assert str(caught.value) == (
        "Expected every callback to have its own key, but ['Callback', 'summation'] came more than once. Pass each "
        "callback once, or give a subclass another `key`."
    )


def test_a_subclass_without_key_is_keyed_by_its_name() -> None:
    class Mine(fh.Callback):
        pass

    assert Mine().state_key.endswith("Mine")
    assert fh.ImportanceCallback().state_key == "importance"


def test_the_base_does_nothing() -> None:
    plain, with_base = (fh.attach(mlp_of_seed(), {}, X, c) for c in ([], [fh.Callback()]))
    for session in (plain, with_base):
        torch.manual_seed(3)
        learn(session, "a", batches(4, 3))
    for expected, found in zip(snapshot(plain.model).values(), snapshot(with_base.model).values(), strict=True):
        assert torch.equal(expected, found)
    base = fh.Callback()
    base.load_state_dict(base.state_dict())
    assert base.allows_closure


def mlp_of_seed() -> torch.nn.Module:
    torch.manual_seed(0)
    return mlp(4, 5, 3)


BUILT_IN: dict[str, Callable[[], fh.Callback]] = {
    "importance": fh.ImportanceCallback,
    "summation": fh.SummationCallback,
    "adjust": lambda: fh.GradientAdjustCallback({"mode": "fg_adahat"}),
}
SUBSETS = [subset for size in range(4) for subset in combinations(BUILT_IN, size)]


@pytest.mark.parametrize("subset", SUBSETS, ids="+".join)
def test_any_subset_works_and_an_absent_callback_does_nothing(subset: tuple[str, ...]) -> None:
    """Only the three together protect; a callback that is absent leaves its results empty."""
    session = fh.attach(mlp(4, 5, 3), {}, X, [BUILT_IN[name]() for name in subset])
    for task in ("a", "b"):
        learn(session, task, batches(4, 3))
    assert bool(session.importance("b")) == ("importance" in subset)
    assert (session.capacity() < 1) == (len(subset) == 3)
    assert set(session.masks("b")) == {"0"}


def test_the_context_describes_the_task() -> None:
    observed: list[tuple[Any, int, float, float]] = []

    class Observer(fh.Callback):
        def on_task_start(self, context: fh.TaskContext) -> None:
            used = (float(context.cumulative.sum()), float(context.summative.sum()))
            observed.append((context.task, context.number, *used))

    session = fh.attach(mlp(4, 8, 3), {}, X, [Observer()])
    learn(session, "a", batches(4, 3))
    learn(session, 7, batches(4, 3))
    a, b = (session.masks(t)["0"] for t in ("a", 7))
    learn(session, "c", batches(4, 3))
    assert [s[:2] for s in observed] == [("a", 1), (7, 2), ("c", 3)]
    assert [s[2:] for s in observed] == [
        (0, 0),
        (int(a.sum()), int(a.sum())),
        (int((a | b).sum()), int(a.sum() + b.sum())),
    ]


def test_hooks_of_a_context_live_until_the_task_ends() -> None:
    calls: list[str] = []

    class Hooking(fh.Callback):
        def on_task_start(self, context: fh.TaskContext) -> None:
            context.hooks.forward(context.layers["0"].module, lambda *_: calls.append(str(context.task)))

    session = fh.attach(mlp(4, 5, 3), {}, X, [Hooking()])
    with session.task("a") as task:
        train(session, task, task.protect(sgd(session.parameter_groups(lr=0.1))), batches(4, 3, count=2))
    assert calls == ["a", "a"]
    with aborted(session, "b"):
        session.model(X)
    with session.use("a"):
        session.model(X)
    assert calls == ["a", "a", "b"]


def test_an_error_in_a_callback_stores_nothing() -> None:
    class Failing(fh.Callback):
        def on_task_end(self, context: fh.TaskContext) -> None:
            raise RuntimeError("mine")

    log: list[tuple[str, str]] = []
    session = fh.attach(mlp(4, 5, 3), {}, X, [Recorder("other", log, 10), Failing()])
    with pytest.raises(RuntimeError, match="mine"):
        learn(session, "a", batches(4, 3))
    assert session.tasks == ()
    assert events(log)[-2:] == ["on_task_end", "on_task_abort"]


def test_a_step_by_hand_has_no_batch_events() -> None:
    log: list[tuple[str, str]] = []
    session = fh.attach(mlp(4, 5, 3), {}, X, [Recorder("mine", log)])
    with session.task("a") as task:
        optimizer = task.protect(sgd(session.parameter_groups(lr=0.1)))
        task.anneal(1, 2)
        backward(session, task, batches(4, 3)[0])
        optimizer.step()
    assert events(log) == ["on_task_start", *A_BATCH[1:3], "on_task_end"]
    assert set(events(log)) <= set(EVENTS)
