"""Forgetting a task: what it frees, that the others keep their bits, and what is refused."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import fgadahat_hooks as fh
from fgadahat_hooks.errors import BadCallError, NoTaskError, TaskRunningError, UnknownTaskError
from fgadahat_hooks.functional.summation import STRATEGIES
from tests.reference import summation as reference
from tests.support.learning import learn, logits, recipe
from tests.support.small import LeftError
from tests.support.small_models import Backwards, Net, batch

PARAMS = {
    "linear_decrease": {"linear_step": 0.5},
    "exponential_decrease": {"exponential_rate": 2.0},
    "log_decrease": {"log_base": 2.0},
}
NAMES = {"linear_step": "step", "exponential_rate": "rate", "log_base": "base"}
PROBE = batch(5, seed=77)[0]


def learnt(spec: Any = None, model: nn.Module | None = None, tasks: str = "abcd") -> fh.Session:
    """Return a session with tasks of different sizes."""
    torch.manual_seed(2)  # each of four tasks has units of its own
    session = fh.attach(model or Net(), spec, PROBE[:1])
    for task in tasks:
        more(session, task)
    return session


def more(session: fh.Session, task: str) -> None:
    """Learn one more task."""
    x, y = batch(seed=ord(task))
    learn(session, task, [(x, y % 2)] * 3, recipe("adamw"), num_classes=2 + ord(task) % 2)


def all_logits(session: fh.Session) -> dict[Any, Tensor]:
    """Return the logits of every finished task."""
    return {task: logits(session, task, PROBE) for task in session.tasks}


def same(first: dict[Any, Tensor], second: dict[Any, Tensor]) -> bool:
    """Compare all that is in the second with the first, bit for bit."""
    return all(torch.equal(first[key], value) for key, value in second.items())


def everything(session: fh.Session) -> list[Any]:
    """Return all that a session remembers and its model holds."""
    return [*remembered(session), *flat(dict(session.model.state_dict()))]


def remembered(session: fh.Session) -> list[Any]:
    """Return all that a session remembers."""
    return flat(session.state_dict())


def flat(tree: Any) -> list[Any]:
    """Return what is in a tree as one comparable list."""
    found: list[Any] = []

    def collect(value: Any) -> None:
        if isinstance(value, Tensor):
            found.append((tuple(value.shape), value.flatten().tolist()))
        elif isinstance(value, dict):
            for key, part in value.items():
                found.append(key)
                collect(part)
        elif isinstance(value, list):
            for part in value:
                collect(part)
        else:
            found.append(value)

    collect(tree)
    return found


# ---------------------------------------------------------------- the report
def test_a_dry_run_reports_what_only_the_task_holds_and_changes_nothing() -> None:
    session = learnt()
    before, capacity = everything(session), session.capacity()
    report = session.forget("b")
    assert everything(session) == before
    assert (report.task, report.forgotten, report.remaining) == ("b", False, ("a", "c", "d"))
    for name, layer in report.layers.items():
        use = [{t for t in "abcd" if session.masks(t)[name][unit]} for unit in range(layer.units)]
        assert layer.units == session.graph.layers[name].units
        assert layer.used == sum("b" in tasks for tasks in use)
        assert layer.alone == sum(tasks == {"b"} for tasks in use)
        assert layer.share == layer.alone / layer.units
    assert report.alone == sum(layer.alone for layer in report.layers.values()) > 0
    assert report.capacity_before == capacity
    assert report == session.forget("b", dry_run=True)


def test_the_report_can_be_read() -> None:
    session = learnt()
    text = str(session.forget("b"))
    units = sum(layer.units for layer in session.graph.layers.values())
    assert text.startswith(f"Task 'b' can be forgotten, which would free {session.forget('b').alone} of {units} units")
    assert all(f"  {name}" in text for name in session.graph.layers)
    assert text.endswith("Other tasks, which keep their bits: 'a', 'c', 'd'.")
    assert str(session.forget("b", dry_run=False)).startswith("Task 'b' was forgotten, which freed ")


def test_stored_bytes_are_those_that_go_away() -> None:
    def held(session: fh.Session) -> int:
        found: dict[int, Tensor] = {}
        for record in session._sequence.state.records.values():
            for part in (record.masks, record.importance, record.tensors):
                found |= {id(value): value for value in part.values()}
        return sum(value.numel() * value.element_size() for value in found.values())

    session = learnt(fh.preset("fg_adahat", tasks=3))
    before = held(session)
    report = session.forget("c", dry_run=False)
    assert report.stored_bytes == before - held(session) > 0


# ---------------------------------------------------------------- the others
@pytest.mark.parametrize("spec", [{}, {"norms": "freeze"}, {"rest": "per_task"}], ids=str)
@pytest.mark.parametrize("forgotten", ["a", "c", "d", "ab", "dca"])
def test_the_others_keep_their_bits_and_the_next_task_uses_what_is_free(forgotten: str, spec: Any) -> None:
    session = learnt({"adjustment": {"mode": "hat"}, **spec})
    before = all_logits(session)
    for task in forgotten:
        report = session.forget(task, dry_run=False)
        assert report.forgotten
        assert task not in session.tasks
        assert session.capacity() == report.capacity_after > report.capacity_before
    assert session.tasks == tuple(task for task in "abcd" if task not in forgotten)
    assert same(before, all_logits(session))
    assert session.verify().tasks == session.tasks
    free = {name: ~mask for name, mask in session.cumulative_mask.items()}
    more(session, "e")
    more(session, forgotten[0])  # its id is free again
    now = all_logits(session)
    assert same(now, {task: value for task, value in before.items() if task not in forgotten})
    assert any((session.masks("e")[name] & mask).any() for name, mask in free.items())
    session.verify()


def test_freed_weights_move_again() -> None:
    session = learnt(model=Backwards(), tasks="ab")
    only = session.masks("a")["first"] & ~session.masks("b")["first"]
    assert only.any()
    held = session.model.get_parameter("first.weight").detach().clone()
    more(session, "c")
    assert torch.equal(session.model.get_parameter("first.weight")[only], held[only])
    session.forget("a", dry_run=False)
    session.forget("c", dry_run=False)
    more(session, "d")
    assert (session.model.get_parameter("first.weight")[only] != held[only]).any()


def test_what_the_first_task_froze_stays_frozen_while_any_task_is_left() -> None:
    session = learnt(tasks="ab")
    scale = session.model.get_parameter("scale").detach().clone()
    session.forget("a", dry_run=False)
    more(session, "c")
    assert torch.equal(session.model.get_parameter("scale"), scale)
    assert not any(p is session.model.get_parameter("scale") for p in session.parameter_groups(lr=0.1)[0]["params"])


def test_without_the_only_task_the_session_begins_anew() -> None:
    session = learnt({"norms": "per_task"}, tasks="")
    norms = {n: v.clone() for n, v in session.model.state_dict().items() if n.startswith("bn")}
    more(session, "a")
    scale = session.model.get_parameter("scale").detach().clone()
    report = session.forget("a", dry_run=False)
    assert (session.tasks, session.capacity(), report.capacity_after) == ((), 1.0, 1.0)
    assert same(dict(session.model.state_dict()), norms)
    session.model(PROBE)  # open again
    with pytest.raises(NoTaskError):
        session.verify()
    more(session, "b")
    assert not torch.equal(session.model.get_parameter("scale"), scale)
    before = all_logits(session)
    more(session, "c")
    assert same(all_logits(session), before)


# ---------------------------------------------------------------- importance
@pytest.mark.parametrize("strategy", sorted(STRATEGIES))
@pytest.mark.parametrize("forgotten", "abd")
def test_importances_are_summed_as_if_the_others_alone_had_ended(strategy: str, forgotten: str) -> None:
    params = PARAMS.get(strategy, {})
    session = learnt(
        {
            "importance": {"type": "activation_abs"},
            "summation": {"strategy": strategy, **params},
            "adjustment": {"mode": "fg_adahat"},
        }
    )
    session.forget(forgotten, dry_run=False)
    summed = session._sequence.state.summed_importance
    short = {NAMES[name]: value for name, value in params.items()}
    for name in session.graph.layers:
        each = [session.importance(task)[name].double().tolist() for task in session.tasks]
        expected = torch.tensor(reference.summed(strategy, each, **short), dtype=torch.float64)
        torch.testing.assert_close(summed[name].double(), expected, rtol=1e-6, atol=0)


def test_forgetting_the_newest_task_is_as_if_it_had_never_been_learnt() -> None:
    session = learnt(fh.preset("fg_adahat", tasks=3), tasks="abc")
    state, capacity = remembered(session), session.capacity()
    more(session, "d")
    session.forget("d", dry_run=False)
    assert remembered(session) == state
    assert session.capacity() == capacity


def test_soft_rates_count_the_others_alone() -> None:
    session = learnt({"adjustment": {"mode": "adahat"}}, tasks="abc")
    before = session.capacity()
    report = session.forget("b", dry_run=False)
    assert session.capacity() == report.capacity_after > before
    expected = {name: session.masks("a")[name].long() + mask for name, mask in session.masks("c").items()}
    assert same(session.summative_mask, expected)


def test_a_session_that_has_forgotten_can_be_saved() -> None:
    session = learnt(fh.preset("fg_adahat", tasks=3))
    session.forget("a", dry_run=False)
    other = fh.attach(Net(), fh.preset("fg_adahat", tasks=3), PROBE[:1])
    other.load_state_dict(session.state_dict())
    for name, value in session.model.state_dict().items():
        if not name.startswith("head."):  # as large as the newest task's
            other.model.state_dict()[name].copy_(value)
    assert same(all_logits(other), all_logits(session))


# ---------------------------------------------------------------- what is refused
@pytest.mark.parametrize("dry_run", [True, False])
def test_refusals_change_nothing(dry_run: bool) -> None:
    session = learnt(tasks="ab")
    before = everything(session)
    with pytest.raises(UnknownTaskError, match="Expected the id of a finished task, but got 'z'"):
        session.forget("z", dry_run)
    with session.use("a"), pytest.raises(TaskRunningError, match=r"A `session\.use` block is open"):
        session.forget("b", dry_run)
    with suppress(LeftError), session.task("c"):
        for task in "ac":
            with pytest.raises(TaskRunningError, match="Task 'c' is running"):
                session.forget(task, dry_run)
        with ThreadPoolExecutor(1) as pool, pytest.raises(TaskRunningError, match="in another thread"):
            pool.submit(session.forget, "a", dry_run).result()
        raise LeftError
    assert everything(session) == before


def test_an_interrupted_task_must_end_first() -> None:
    session = learnt(tasks="ab")
    with suppress(LeftError), session.task("c") as task:
        task.anneal(1, 1)
        state = session.state_dict()
        raise LeftError
    session.load_state_dict(state)
    with pytest.raises(TaskRunningError, match=r"in the middle of task 'c'.*session\.roll_back\(\)"):
        session.forget("a")
    session.roll_back()
    session.forget("a", dry_run=False)
    assert session.tasks == ("b",)


def test_importances_that_nothing_can_sum_anew() -> None:
    session = learnt(fh.preset("fg_adahat", tasks=3), tasks="ab")
    hard = [fh.GradientAdjustCallback({"mode": "hat"})]
    other = fh.attach(Net(), {"rest": "per_task"}, PROBE[:1], callbacks=hard)
    other.load_state_dict(session.state_dict())
    with pytest.raises(BadCallError, match="Expected a SummationCallback"):
        other.forget("a", dry_run=False)
    assert other.tasks == ("a", "b")
