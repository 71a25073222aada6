"""Random networks, orders of tasks and optimizers: nothing is forgotten, and detach restores the model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from hypothesis import assume, event, given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import SGD, Adagrad, Adam, AdamW, NAdam, Optimizer, RMSprop

import fgadahat_hooks as fh
from fgadahat_hooks.errors import FgadahatError, NonFiniteError
from fgadahat_hooks.gates.task_state import TaskId
from tests.property.random_networks import CLASSES, Step, Wired, blueprints
from tests.support.learning import Recipe, learn, logits
from tests.support.small_models import batch
from tests.support.snapshot import Snapshot, differences, snapshot

PROBE = batch(5, seed=99)[0]

# With much regularization a task of a few steps uses no unit at all, and then there is nothing to forget.
SPECS = st.fixed_dictionaries(
    {"regularization": st.fixed_dictionaries({"factor": st.sampled_from([0.0, 0.01])})},
    optional={
        "gates": st.fixed_dictionaries(
            {"init": st.sampled_from(["N01", "U-11", "U01", "last"]), "position": st.sampled_from(["auto", "output"])}
        ),
        "norms": st.sampled_from(["per_task", "freeze"]),
        "rest": st.sampled_from(["freeze", "per_task"]),
    },
)
TASKS = st.lists(
    st.tuples(st.text(min_size=1, max_size=4) | st.integers(), st.none() | st.integers(1, 4)),
    min_size=2,
    max_size=3,
    unique_by=lambda task: task[0],
)
OPTIMIZERS: dict[str, Any] = {
    "sgd": lambda groups: SGD(groups),
    "momentum": lambda groups: SGD(groups, momentum=0.9, nesterov=True),
    "adam": lambda groups: Adam(groups, amsgrad=True),
    "adamw": lambda groups: AdamW(groups),
    "nadam": lambda groups: NAdam(groups),
    "adagrad": lambda groups: Adagrad(groups),
    "rmsprop": lambda groups: RMSprop(groups, momentum=0.9),
}
Tasks = list[tuple[TaskId, int | None]]
Blueprint = tuple[tuple[Step, ...], int]


@st.composite
def recipes(draw: st.DrawFn) -> Recipe:
    """Draw an optimizer, kept over all tasks or made anew for each."""
    name, decay = draw(st.sampled_from(sorted(OPTIMIZERS))), draw(st.sampled_from([0.0, 0.1]))
    event(name)

    def make(groups: list[dict[str, Any]]) -> Optimizer:
        made: Optimizer = OPTIMIZERS[name](groups)
        return made

    return Recipe(make, draw(st.sampled_from([1e-3, 1e-2])), decay, keep=draw(st.booleans()))


def seen_on(model: nn.Module) -> Snapshot:
    """Return all there is to see on a model alone."""
    return snapshot(model, global_hooks=False)


def network(blueprint: Blueprint, seed: int = 0) -> Wired:
    """Build a network; the same seed gives the same weights."""
    torch.manual_seed(seed)
    return Wired(*blueprint)


def attached(model: nn.Module, spec: Any) -> fh.Session:
    """Attach hard HAT; a network that cannot be attached to must raise our own error, and is skipped."""
    before = seen_on(model)
    try:
        return fh.attach(model, {"adjustment": {"mode": "hat"}, **spec}, PROBE[:2])
    except FgadahatError as error:
        event(f"not attached: {type(error).__name__}")
        assert differences(before, seen_on(model)) == []
        assume(False)
        raise


def learn_all(session: fh.Session, tasks: Tasks, how: Recipe) -> dict[TaskId, Tensor]:
    """Learn tasks; return the logits of each as they were when it ended."""
    ended = {}
    for number, (task, classes) in enumerate(tasks):
        data = [batch(6, seed=10 * number + k) for k in range(2)]
        try:
            learn(session, task, [(x, y % (classes or CLASSES)) for x, y in data], how, num_classes=classes)
        except NonFiniteError:
            assume(False)
        ended[task] = logits(session, task, PROBE)
    return ended


def shape(seen: Snapshot) -> Snapshot:
    """Leave out of a snapshot what training is there to change: values, and parameters of a head of another size."""
    return {key: _kind(value) for key, value in seen.items() if not key.endswith((": out_features", ": steps"))}


def _kind(value: Any) -> Any:
    if (
        isinstance(value, tuple)
        and len(value) == 2
        and isinstance(value[1], Sequence)
        and not isinstance(value[1], str)
    ):
        return value[0], [part[0] if isinstance(part, tuple) else part for part in value[1]]
    return value


@given(blueprints(), SPECS, TASKS, recipes())
def test_nothing_is_forgotten_unless_asked_for(blueprint: Blueprint, spec: Any, tasks: Tasks, how: Recipe) -> None:
    session = attached(network(blueprint), spec)
    ended = learn_all(session, tasks, how)
    used = torch.cat(list(session.cumulative_mask.values()))
    event("some units are used" if used.any() and not used.all() else "all units are used, or none")
    for task, before in ended.items():
        assert torch.equal(logits(session, task, PROBE), before), task
    assert session.verify().leaks == {}
    event(f"{len(session.graph.layers)} gated layers")

    other = attached(network(blueprint, seed=1), spec)
    other.load_state_dict(session.state_dict())
    other.model.load_state_dict(session.model.state_dict())
    assert other.tasks == session.tasks
    for task, before in ended.items():
        assert torch.equal(logits(other, task, PROBE), before), task
    ids = [list(ended)[row % len(ended)] for row in range(len(PROBE))]
    mixed = logits(session, ids, PROBE)
    for row, task in enumerate(ids):
        assert torch.equal(mixed[row, : ended[task].shape[1]], ended[task][row])

    gone = tasks[len(blueprint[0]) % len(tasks)][0]
    report = session.forget(gone, dry_run=False)
    assert report.capacity_after >= report.capacity_before
    session.verify()
    ended |= learn_all(session, [(gone, 2)], how)
    for task, before in ended.items():
        assert torch.equal(logits(session, task, PROBE), before), task


@given(blueprints(), SPECS, TASKS, recipes(), st.booleans())
def test_the_model_is_given_back(blueprint: Blueprint, spec: Any, tasks: Tasks, how: Recipe, training: bool) -> None:
    model = network(blueprint).train(training)
    model.layers["s1"].requires_grad_(False)
    before, logits_before = seen_on(model), model.eval()(PROBE)
    model.train(training)
    untouched = {name: value.clone() for name, value in model.layers["s1"].state_dict().items()}
    session = attached(model, spec)
    assert torch.equal(model.eval()(PROBE), logits_before)
    model.train(training)
    assert session.detach() is model
    assert differences(before, seen_on(model)) == []

    session = attached(model, spec)
    learn_all(session, tasks, how)
    model.train(training).zero_grad()
    session.detach()
    for parameter in model.parameters():
        parameter.grad = None
    assert differences(shape(before), shape(seen_on(model))) == []
    assert all(torch.equal(value, untouched[name]) for name, value in model.layers["s1"].state_dict().items())
    assert F.cross_entropy(model.eval()(PROBE), torch.zeros(5, dtype=torch.long)).isfinite()


def test_the_check_can_fail() -> None:
    steps = (Step("conv", (0,), (2, 4, 3, 1, 1, True)), Step("batch norm", (1,), (4,)), Step("mean", (2,)))
    session = attached(network((steps, 4)), {"norms": "share", "regularization": {"factor": 0.0}})
    ended = learn_all(session, [("a", None), ("b", None)], Recipe(SGD, 0.01))
    assert not torch.equal(logits(session, "a", PROBE), ended["a"])
