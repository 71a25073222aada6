"""`session.state_dict` and `load_state_dict`: a task resumed in a new process ends with the same bits."""

from __future__ import annotations

import copy
import io
import pickle
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.optim import SGD, Adagrad, AdamW, Optimizer

import fgadahat_hooks as fh
from fgadahat_hooks.errors import (
    BadCallError,
    NoTaskError,
    StateMismatchError,
    TaskRunningError,
)
from tests.support.small import LeftError

STEPS = 6
"""Batches of an epoch; each task has one epoch."""

SPECS: dict[str, dict[str, Any]] = {
    "hat": {"adjustment": {"mode": "hat"}},
    "random": {"adjustment": {"mode": "hat_random"}},
    "adahat": {"adjustment": {"mode": "adahat"}, "rest": "per_task"},
    "activation": {"adjustment": {"mode": "fg_adahat"}, "importance": {"type": "activation_abs"}},
    "gradient": {
        "adjustment": {"mode": "fg_adahat", "apply_to": "gradient"},
        "importance": {"type": "input_weight_gradient_abs_sum", "every_n_steps": 2},
        "norms": "freeze",
    },
}
MAKERS: dict[str, Callable[[Any], Optimizer]] = {
    "momentum": lambda groups: SGD(groups, momentum=0.9),
    "adamw": AdamW,
    "adagrad": Adagrad,
}


class Net(nn.Module):
    """Convolution, norm, a parameter of its own, a hidden layer and a head."""

    def __init__(self, hidden: int = 8, classes: int = 3) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.scale = nn.Parameter(torch.ones(()))
        self.hidden = nn.Linear(4 * 16, hidden)
        self.head = nn.Linear(hidden, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.conv(x)).relu() * self.scale
        return self.head(self.hidden(x.flatten(1)).relu())  # type: ignore[no-any-return]


def batch(number: int, classes: int = 3) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(number)
    return torch.randn(8, 1, 4, 4, generator=draw), torch.randint(0, classes, (8,), generator=draw)


def attached(spec: Any, **sizes: int) -> fh.Session:
    return fh.attach(Net(**sizes), spec, torch.zeros(2, 1, 4, 4))


def epoch(number: int, classes: int) -> list[tuple[Tensor, Tensor]]:
    return [batch(100 * number + k, classes) for k in range(STEPS)]


class Run:
    """Trains a few tasks in a plain loop; may be stopped after any step and resumed in a new process."""

    TASKS = (("birds", 3), (2, 5), ("cars", 3))

    def __init__(self, spec: Any, make: Callable[[Any], Optimizer], stop: tuple[int, int] | None = None) -> None:
        torch.manual_seed(0)
        self.session = attached(spec)
        self.make = make
        self.stop = stop
        self.saved: bytes | None = None
        self.optimizer: Optimizer | None = None
        self.forget = False

    def train(self) -> Run:
        with suppress(LeftError):
            self._all()
        return self

    def _all(self) -> None:
        loaded = self._load()
        for number, (name, classes) in enumerate(self.TASKS):
            if name in self.session.tasks:
                continue
            resuming = name == self.session.interrupted
            num_classes = None if resuming else classes
            torch.manual_seed(1 + number)
            if self.stop == (number, 0):
                self._save()
            with self.session.task(name, num_classes, resume=resuming) as task:
                self.optimizer = task.protect(self.make(self.session.parameter_groups(lr=0.01, weight_decay=0.1)))
                if resuming and loaded is not None and not self.forget:
                    self.optimizer.load_state_dict(loaded["optimizer"])
                data = task.batches(epoch(number, classes), start=task.steps)
                for x, y in data:
                    self.session.model.train()
                    self.optimizer.zero_grad()
                    (cross_entropy(self.session.model(x), y) + task.regularization()).backward()
                    self.optimizer.step()
                    if self.stop == (number, task.steps):
                        self._save()

    def _save(self) -> None:
        assert self.optimizer is not None
        file = io.BytesIO()
        parts: dict[str, Any] = {"model": self.session.model, "session": self.session, "optimizer": self.optimizer}
        torch.save({name: part.state_dict() for name, part in parts.items()}, file)
        self.saved = file.getvalue()
        raise LeftError

    def _load(self) -> Any:
        if self.saved is None:
            return None
        loaded = torch.load(io.BytesIO(self.saved), weights_only=True)
        self.session.model.load_state_dict(loaded["model"])
        self.session.load_state_dict(loaded["session"])
        return loaded

    def in_a_new_process(self) -> Run:
        """Return a run that resumes from the saved file alone, as another process would."""
        other = Run(self.session.spec, self.make)
        other.saved = self.saved
        return other

    def session_state(self) -> Any:
        assert self.saved is not None
        return torch.load(io.BytesIO(self.saved), weights_only=True)["session"]

    def everything(self) -> dict[str, Any]:
        assert self.optimizer is not None
        state = self.session.state_dict()
        return {"model": self.session.model.state_dict(), "session": state, "optimizer": self.optimizer.state_dict()}


def differing(a: Any, b: Any, where: str = "") -> list[str]:
    """List every place where two nested values differ in their bits."""
    if isinstance(a, Tensor):
        return [] if isinstance(b, Tensor) and a.dtype == b.dtype and torch.equal(a, b) else [where]
    if isinstance(a, dict) and isinstance(b, dict):
        return [w for k in {**a, **b} for w in differing(a.get(k), b.get(k), f"{where}.{k}")]
    if isinstance(a, list | tuple) and isinstance(b, list | tuple) and len(a) == len(b):
        return [w for k, (x, y) in enumerate(zip(a, b, strict=True)) for w in differing(x, y, f"{where}[{k}]")]
    return [] if a == b else [where]


# ------------------------------------------------------------------ the same bits
@pytest.mark.parametrize("optimizer", MAKERS)
@pytest.mark.parametrize("spec", SPECS)
def test_an_interrupted_run_ends_with_the_same_bits(spec: str, optimizer: str) -> None:
    whole = Run(SPECS[spec], MAKERS[optimizer]).train().everything()
    assert whole["session"]["running"] is None
    for place in [(0, 2), (1, 1), (2, STEPS - 1)] if optimizer == "adamw" else [(1, 3)]:
        stopped = Run(SPECS[spec], MAKERS[optimizer], place).train()
        assert stopped.saved is not None
        assert differing(whole, stopped.in_a_new_process().train().everything()) == []


def test_a_state_saved_between_tasks_resumes_to_the_same_bits() -> None:
    whole = Run(SPECS["activation"], AdamW).train()
    stopped = Run(SPECS["activation"], AdamW, stop=(1, 0)).train()
    other = stopped.in_a_new_process().train()
    assert other.session.tasks == whole.session.tasks == ("birds", 2, "cars")
    assert differing(whole.everything(), other.everything()) == []


def test_the_comparison_can_fail() -> None:
    whole = Run(SPECS["hat"], AdamW).train().everything()
    stopped = Run(SPECS["hat"], AdamW, (1, 3)).train()
    other = stopped.in_a_new_process()
    other.forget = True
    assert [w for w in differing(whole, other.train().everything()) if w.startswith(".model")]


def test_a_state_loads_into_a_model_that_was_loaded_after_it() -> None:
    first = Run(SPECS["hat"], AdamW).train()
    other = attached(SPECS["hat"])
    other.load_state_dict(first.session.state_dict())
    other.model.load_state_dict(first.session.model.state_dict())
    x, _ = batch(1)
    for task in first.session.tasks:
        with torch.no_grad(), first.session.use(task), other.use(task):
            assert torch.equal(first.session.model.eval()(x), other.model.eval()(x))
    other.verify()


# ------------------------------------------------------------------ what is in a state
def test_the_state_is_plain_data_without_the_model_in_it() -> None:
    session = Run(SPECS["activation"], AdamW, (2, 3)).train().session
    live = {t.data_ptr() for t in session.model.state_dict().values()}
    state = session.state_dict()
    assert [task["id"] for task in state["tasks"]] == ["birds", 2]
    assert plain(state)
    assert not live & {t.data_ptr() for t in tensors(state)}


def plain(value: Any) -> bool:
    if isinstance(value, dict):
        return all(isinstance(k, str) and plain(v) for k, v in value.items())
    if isinstance(value, list):
        return all(map(plain, value))
    return value is None or type(value) in (str, int, float, bool, Tensor)


def tensors(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [t for part in parts for t in tensors(part)]


def test_a_running_task_is_in_the_state_and_keeps_running() -> None:
    session = attached(SPECS["hat"])
    assert session.state_dict()["running"] is None
    with session.task(7, num_classes=5) as task:
        task.anneal(2, 4)
        running = session.state_dict()["running"]
        assert (running["id"], running["num_classes"], running["steps"]) == (7, 5, 0)
        assert running["scale"] == pytest.approx(task.anneal(2, 4))
    assert session.state_dict()["running"] is None


def test_a_callback_of_the_users_is_in_the_state() -> None:
    class Mine(fh.Callback):
        def __init__(self) -> None:
            self.seen: dict[str, Any] = {}

        def state_dict(self) -> dict[str, Any]:
            return self.seen

        def load_state_dict(self, state: Any) -> None:
            self.seen = dict(state)

    first, second = Mine(), Mine()
    session = fh.attach(Net(), {}, torch.zeros(2, 1, 4, 4), [first])
    first.seen = {"sums": [1.5, torch.ones(2)]}
    other = fh.attach(Net(), {}, torch.zeros(2, 1, 4, 4), [second])
    other.load_state_dict(session.state_dict())
    assert second.seen["sums"][0] == 1.5
    first.seen = {"odd": [object()], "keys": {1: 2}}
    with pytest.raises(BadCallError, match=r"callback 'test_.*Mine' at \['odd'\]\[0\] \(object\)"):
        session.state_dict()


def test_a_missing_callback_of_the_running_task_is_reported() -> None:
    stopped = Run(SPECS["activation"], AdamW, (1, 2)).train()
    other = fh.attach(Net(), SPECS["activation"], torch.zeros(2, 1, 4, 4), [fh.GradientAdjustCallback()])
    with pytest.raises(StateMismatchError, match="callback 'importance' of the running task"):
        other.load_state_dict(stopped.session_state())


# ------------------------------------------------------------------ resume or roll back
def test_an_interrupted_task_is_resumed_or_rolled_back() -> None:
    stopped = Run(SPECS["hat"], AdamW, (1, 2)).train()
    other = stopped.in_a_new_process()
    other._load()
    session = other.session
    assert (session.interrupted, session.tasks) == (2, ("birds",))
    with pytest.raises(TaskRunningError, match=r"in the middle of task 2\. Continue it by `session.task\(2, resume"):
        session.task("cars").__enter__()
    with pytest.raises(NoTaskError, match="the interrupted task is 2"):
        session.task("cars", resume=True)
    with pytest.raises(BadCallError, match="Expected num_classes=5"):
        session.task(2, num_classes=4, resume=True)
    again = session.state_dict()
    assert differing(again, stopped.session_state()) == []
    session.roll_back()
    session.roll_back()
    assert session.interrupted is None
    assert session.model.get_submodule("head").out_features == 3
    with pytest.raises(NoTaskError, match="no task was interrupted"):
        session.task(2, resume=True)
    ended = {name: value for name, value in stopped.session.model.state_dict().items() if "hat_gate" in name}
    assert all(torch.equal(value, session.model.state_dict()[name]) for name, value in ended.items())
    with session.task(2, num_classes=4) as task:
        task.anneal(1, 1)


def test_an_interrupted_task_may_be_evaluated_and_ended_without_a_step() -> None:
    stopped = Run(SPECS["hat"], AdamW, (0, 4)).train()
    other = stopped.in_a_new_process()
    other._load()
    x, _ = batch(1)
    with pytest.raises(NoTaskError, match="outside any task"):
        other.session.model(x)
    with torch.no_grad(), other.session.use("birds"):
        before = other.session.model.eval()(x)
    with other.session.task("birds", resume=True):
        pass
    with torch.no_grad(), other.session.use("birds"):
        assert torch.equal(other.session.model(x), before)


def test_a_state_cannot_be_loaded_into_a_running_task() -> None:
    session = attached(SPECS["hat"])
    state = session.state_dict()
    with session.task("a") as task:
        task.anneal(1, 1)
        with pytest.raises(TaskRunningError, match="leave its block before loading"):
            session.load_state_dict(state)


def test_before_the_trace_there_is_no_state() -> None:
    session = fh.attach(Net(), {})
    with pytest.raises(NoTaskError, match="there is no state"):
        session.state_dict()
    with pytest.raises(NoTaskError, match="cannot be compared"):
        session.load_state_dict({})


# ------------------------------------------------------------------ another model
def test_a_state_of_another_model_is_refused_with_all_differences_and_nothing_is_changed() -> None:
    state = Run(SPECS["hat"], AdamW).train().session.state_dict()
    session = attached({"gates": {"targets": "all-linear"}, "norms": "share"}, hidden=9)
    before, values = session.state_dict(), copy.deepcopy(session.model.state_dict())
    with pytest.raises(StateMismatchError) as caught:
        session.load_state_dict(state)
    message = str(caught.value)
    for part in (
        "gated layer 'conv' (4 units) is not in the model",
        "gated layer 'hidden' has 9 units, the state has 8",
        "tensor 'head.weight' has shape (3, 9), that of task 'birds' (3, 8)",
        "tensor 'norm.weight' of task 'birds' is not one of the model",
        "and ",
    ):
        assert part in message
    assert differing(session.state_dict(), before) == []
    assert differing(session.model.state_dict(), values) == []
    assert session.tasks == ()


@pytest.mark.parametrize(
    ("state", "message"),
    [
        (None, "but got NoneType"),
        ({}, "but got dict"),
        ({"format": "fgadahat_hooks.session", "version": 99}, "version 1, but got 99"),
        ({"format": "fgadahat_hooks.session", "version": 1, "layers": []}, "lacks callbacks, frozen, initial"),
    ],
)
def test_anything_but_a_state_is_refused(state: Any, message: str) -> None:
    with pytest.raises(StateMismatchError, match=message):
        attached({}).load_state_dict(state)


# ------------------------------------------------------------------ a head takes the size of a loaded state_dict
def test_a_head_takes_the_size_of_the_values_that_are_loaded() -> None:
    session, saved = attached({}), Net(classes=7).state_dict()
    optimizer = SGD(session.parameter_groups(lr=0.1))
    gates = {name: v for name, v in session.model.state_dict().items() if "hat_gate" in name}
    session.model.load_state_dict({**saved, **gates})
    head = session.model.get_submodule("head")
    assert head.out_features == 7
    assert head.get_parameter("weight").shape == (7, 8)
    with session.task("a") as task:
        task.protect(optimizer)
        assert any(p is head.get_parameter("weight") for p in optimizer.param_groups[0]["params"])
    with pytest.raises(RuntimeError, match="size mismatch for hidden"):
        session.model.load_state_dict({**Net(hidden=9).state_dict(), **gates})


def test_detach_removes_the_hook_and_copies_keep_their_size() -> None:
    session, saved = attached({}), Net(classes=7).state_dict()
    for other in (copy.deepcopy(session.model), pickle.loads(pickle.dumps(session.model))):  # noqa: S301
        with pytest.raises(RuntimeError, match="size mismatch for head"):
            other.load_state_dict(saved, strict=False)
    model = session.detach()
    with pytest.raises(RuntimeError, match="size mismatch for head"):
        model.load_state_dict(saved)
    assert model.get_submodule("head").out_features == 3


def test_prepare_resizes_the_head_before_the_task() -> None:
    session = attached({})
    before = session.model.get_parameter("head.weight")
    value = before.detach().clone()
    ahead = session.task("a", num_classes=6)
    ahead.prepare()
    parameter = session.model.get_parameter("head.weight")
    assert parameter.shape == (6, 8)
    with ahead as task:
        assert session.model.get_parameter("head.weight") is parameter
        task.anneal(1, 1)
        drawn = parameter.detach().clone()
        assert drawn.abs().max() > 0
    torch.manual_seed(0)
    other = session.task("b", num_classes=4)
    other.prepare()
    other.prepare()
    other.drop()
    other.drop()
    assert torch.equal(session.model.get_parameter("head.weight"), drawn)
    assert value.shape == (3, 8)


def test_a_prepared_task_draws_what_an_unprepared_one_draws() -> None:
    drawn = []
    for prepare in (False, True):
        torch.manual_seed(0)
        session = attached({})
        task = session.task("a", num_classes=6)
        if prepare:
            task.prepare()
        with task:
            task.anneal(1, 1)
        drawn.append(session.model.state_dict())
    assert differing(drawn[0], drawn[1]) == []
