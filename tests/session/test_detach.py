"""The model stays the user's: attach and detach leave nothing behind, whatever goes wrong in between."""

from __future__ import annotations

import copy
import importlib
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import fgadahat_hooks as fh
from fgadahat_hooks.errors import AlreadyAttachedError, DetachedError, TaskRunningError, TraceError
from tests.support.learning import learn, logits, recipe
from tests.support.small_models import Functional, Net, batch
from tests.support.snapshot import content, differences, snapshot
from tests.support.zoo_models import BUILDERS, LIGHT, build, images, labels

SPECS: dict[str, dict[str, Any]] = {
    "default": {},
    "output": {"gates": {"position": "output"}},
    "frozen norms": {"norms": "freeze"},
    "fg_adahat": {"importance": {"type": "input_weight_abs_sum"}, "adjustment": {"mode": "fg_adahat"}},
}
USED_IN = {
    "install": "fgadahat_hooks.session.attach",
    "OptimizerGuard": "fgadahat_hooks.session.attach",
    "Session": "fgadahat_hooks.session.attach",
    "classify": "fgadahat_hooks.session.install",
    "install_norm": "fgadahat_hooks.gates.install",
    "install_output": "fgadahat_hooks.gates.install",
}
"""Functions that `attach` calls, and the module that calls each."""


def contents(model: nn.Module) -> dict[str, Any]:
    return {name: content(value) for name, value in model.state_dict().items()}


def run(model: nn.Module, x: Tensor) -> Tensor:
    with torch.no_grad():
        out: Tensor = model(x)
    return out


# ------------------------------------------------------------------ attach and detach
@pytest.mark.parametrize("name", BUILDERS)
def test_attach_and_detach_leave_nothing(name: str) -> None:
    model = build(name)
    next(iter(model.children())).eval()  # the mode of a single module must survive too
    before, pickled = snapshot(model), len(pickle.dumps(model))
    session = fh.attach(model, SPECS["default"], images(1))
    assert session.detach() is model
    assert differences(before, snapshot(model)) == []
    assert len(pickle.dumps(model)) == pickled
    assert contents(copy.deepcopy(model)) == contents(model)


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
@pytest.mark.parametrize("example", [None, images(1)], ids=["first batch", "example"])
def test_every_kind_of_gate_leaves_nothing(spec: dict[str, Any], example: Tensor | None) -> None:
    model = build("mobilenet_v3_small").eval()
    before, out = snapshot(model), run(model, images())
    session = fh.attach(model, spec, example)
    assert torch.equal(run(model, images()), out)  # no task yet: gates are open
    session.detach()
    assert differences(before, snapshot(model)) == []


@pytest.mark.parametrize("name", ["shufflenet_v2_x0_5", "swin_t"])
def test_an_attached_model_is_the_same_class_with_the_same_keys(name: str) -> None:
    model = build(name)
    cls, forward, before = type(model), model.forward, contents(model)
    fh.attach(model, None, images(1))
    after = contents(model)
    assert type(model) is cls
    assert model.forward == forward
    assert {k: v for k, v in after.items() if "hat_gate" not in k} == before
    assert all(k.endswith("hat_gate.embedding") for k in set(after) - set(before))


@pytest.mark.parametrize("name", ["resnet18", "swin_t"])
def test_plan_changes_nothing(name: str) -> None:
    model = build(name)
    before, rng = snapshot(model), torch.get_rng_state()
    fh.plan(model, {}, images(1))
    assert differences(before, snapshot(model)) == []
    assert torch.equal(torch.get_rng_state(), rng)


def test_after_tasks_only_values_differ() -> None:
    model = build("shufflenet_v2_x0_5")
    before, shapes = snapshot(model), {n: v.shape for n, v in model.state_dict().items()}
    session = fh.attach(model, None, images(1))
    learn(session, "a", [(images(), labels())], recipe("adamw"))
    learn(session, "b", [(images(), labels())], recipe("adamw"))
    session.detach()
    assert {n: v.shape for n, v in model.state_dict().items()} == shapes
    changed = [key for key in differences(before, snapshot(model)) if not key.endswith(("_parameters", "_buffers"))]
    assert changed == []


def test_detach_inside_use_keeps_that_task() -> None:
    model = build("shufflenet_v2_x0_5")
    session = fh.attach(model, None, images(1))
    for task in ("a", "b"):
        learn(session, task, [(images(), labels())], recipe("adamw"))
    with session.use("a"):
        wanted = model.get_parameter("fc.weight").clone()
        session.detach()
    assert torch.equal(model.get_parameter("fc.weight"), wanted)


def test_detach_twice_does_nothing_and_the_model_can_be_attached_again() -> None:
    model = build("shufflenet_v2_x0_5")
    session = fh.attach(model, None, images(1))
    with pytest.raises(AlreadyAttachedError, match=r"session\.detach"):
        fh.attach(model, None, images(1))
    session.detach()
    again = fh.attach(model, None, images(1))
    session.detach()
    assert again.graph.heads == ("fc",)
    with pytest.raises(DetachedError):
        session.task("a")
    again.detach()


def test_detach_inside_a_task_is_refused() -> None:
    session = fh.attach(build("shufflenet_v2_x0_5"), None, images(1))
    with session.task("a"), pytest.raises(TaskRunningError, match="leave its block"):
        session.detach()


# ------------------------------------------------------------------ when something fails
class BoomError(Exception):
    """Raised by the tests."""


def boom(*_: Any, **__: Any) -> Any:
    raise BoomError


@pytest.mark.parametrize("place", USED_IN)
@pytest.mark.parametrize("name", LIGHT)
def test_a_failing_attach_leaves_nothing(name: str, place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = build(name)
    before = snapshot(model)
    spec = SPECS["output" if place == "install_output" else "default"]
    module = importlib.import_module(USED_IN[place])
    monkeypatch.setattr(module, place, _at_call(getattr(module, place), 2 if place.startswith("install_") else 1))
    with pytest.raises(BoomError):
        fh.attach(model, spec, images(1))
    assert differences(before, snapshot(model)) == []


def _at_call(real: Callable[..., Any], number: int) -> Callable[..., Any]:
    """Return a function that calls `real`, and raises at its n-th call instead."""
    calls = iter(range(1, 1000))
    return lambda *args, **kwargs: boom() if next(calls) == number else real(*args, **kwargs)


def test_a_forward_that_raises_on_the_example_leaves_nothing() -> None:
    model = build("resnet18")
    before, rng = snapshot(model), torch.get_rng_state()
    with pytest.raises(TraceError, match="expected input"):
        fh.attach(model, None, torch.zeros(1, 7, 32, 32))
    assert differences(before, snapshot(model)) == []
    assert torch.equal(torch.get_rng_state(), rng)


def test_a_first_batch_that_raises_can_be_tried_again() -> None:
    model = build("resnet18")
    before = snapshot(model)
    session = fh.attach(model)
    attached = snapshot(model)
    with pytest.raises(TraceError):
        model(torch.zeros(1, 7, 32, 32))
    assert differences(attached, snapshot(model)) == []
    run(model.eval(), images(1))
    model.train()
    assert session.graph.heads == ("fc",)
    session.detach()
    assert differences(before, snapshot(model)) == []


@pytest.mark.parametrize(("kind", "place"), [(Net, "bn2"), (Net, "head"), (Functional, ""), (Functional, "head")])
def test_a_forward_that_raises_halfway_leaves_no_gate_folded(kind: type[nn.Module], place: str) -> None:
    model = kind()
    session = fh.attach(model, None, batch(1)[0])
    with session.task("a") as task:
        begun = snapshot(model.eval())
        handle = model.get_submodule(place).register_forward_pre_hook(boom)
        with pytest.raises(BoomError):
            model(batch()[0])
        handle.remove()
        assert differences(begun, snapshot(model)) == []
        task.anneal(1, 1)


# ------------------------------------------------------------------ copies and moves
def trained(spec: dict[str, Any]) -> fh.Session:
    session = fh.attach(build("mobilenet_v3_small"), spec, images(1))
    learn(session, "a", [(images(), labels())] * 2, recipe("adamw"))
    return session


COPIES: dict[str, Callable[[nn.Module], nn.Module]] = {
    "deepcopy": copy.deepcopy,
    "pickle": lambda model: pickle.loads(pickle.dumps(model)),  # noqa: S301
}


@pytest.mark.parametrize("copied", COPIES.values(), ids=COPIES)
@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
def test_a_copy_computes_the_same_under_gates_of_its_own(
    spec: dict[str, Any], copied: Callable[[nn.Module], nn.Module]
) -> None:
    session = trained(spec)
    wanted = logits(session, "a", images())
    with session.use("a"):
        twin = copied(session.model)
    assert torch.equal(run(twin, images()), wanted)
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.zero_()
    assert torch.equal(logits(session, "a", images()), wanted)


@pytest.mark.parametrize("copied", COPIES.values(), ids=COPIES)
def test_a_copy_made_before_the_first_batch_runs_without_gates(copied: Callable[[nn.Module], nn.Module]) -> None:
    model = build("shufflenet_v2_x0_5").eval()
    out = run(model, images())
    fh.attach(model)
    assert torch.equal(run(copied(model), images()), out)


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
def test_a_model_may_be_cast_after_attach(spec: dict[str, Any]) -> None:
    session = fh.attach(build("shufflenet_v2_x0_5"), spec, images(1))
    session.model.double()
    x, how = images().double(), recipe("adamw")
    learn(session, "a", [(x, labels())] * 2, how)
    wanted = logits(session, "a", x)
    learn(session, "b", [(x, labels())] * 2, how)
    assert wanted.dtype is torch.float64
    if session.plan.leaks == ():
        assert torch.equal(logits(session, "a", x), wanted)
        session.verify(x[:1])


def test_a_task_may_be_evaluated_in_another_dtype() -> None:
    session = trained({})
    single = logits(session, "a", images())
    session.model.double()
    double = logits(session, "a", images().double())
    torch.testing.assert_close(double.float(), single, rtol=1e-3, atol=1e-4)
    session.model.float()
    assert torch.equal(logits(session, "a", images()), single)


def test_users_hooks_stay_in_place_and_see_gated_outputs() -> None:
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2))
    seen: list[tuple[str, Tensor]] = []
    model[0].register_forward_hook(lambda _, __, out: seen.append(("first", out)))
    model[0].register_forward_hook(lambda _, __, out: seen.append(("second", out)))
    before = snapshot(model)
    session = fh.attach(model, None, torch.zeros(1, 4))
    seen.clear()
    with session.task("a"):
        gate = model[0].get_parameter("hat_gate.embedding")
        with torch.no_grad():
            gate.copy_(torch.tensor([1.0, -1.0] * 3))
        model.eval()(torch.ones(1, 4))
        model.train()
    assert [name for name, _ in seen] == ["first", "second"]
    assert all((out[:, 1::2] == 0).all() and out.any() for _, out in seen)
    session.detach()
    assert differences(before, snapshot(model)) == []
