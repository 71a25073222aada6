"""One task: what its end stores, what an exception restores, and what happens around a step."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.optim import LBFGS, SGD, AdamW, Optimizer

import fgadahat_hooks as fh
from fgadahat_hooks.errors import NonFiniteError, NoTaskError, OptimizerError, UnprotectedOptimizerError
from fgadahat_hooks.functional import regularization
from tests.support.learning import Recipe, breaking, gates, learn, logits, recipe
from tests.support.small_models import Net, TwoHeads, batch


@pytest.fixture
def session() -> fh.Session:
    """Give a session of one finished task."""
    made = fh.attach(Net(), None, batch(1)[0])
    learn(made, "a", [batch()] * 3, recipe("adamw"))
    return made


def values(session: fh.Session) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in session.model.state_dict().items()}


def step(session: fh.Session, optimizer: Optimizer, seed: int = 5) -> None:
    x, y = batch(seed=seed)
    optimizer.zero_grad()
    F.cross_entropy(session.model.train()(x), y).backward()
    optimizer.step()


class Decay(SGD):
    """Decays every parameter, with or without a gradient."""

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter.mul_(0.9)


class Spoil(AdamW):
    """Sets every parameter of one element per class to NaN."""

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.shape == (3,):
                    parameter.fill_(math.nan)


# ------------------------------------------------------------------ an exception inside the block
@pytest.mark.parametrize("num_classes", [None, 5])
@pytest.mark.parametrize("spec", ["hat", "fg_adahat"])
def test_an_exception_stores_nothing_and_restores_what_tasks_own(spec: str, num_classes: int | None) -> None:
    session = fh.attach(Net(), fh.preset(spec, tasks=3), batch(1)[0])
    learn(session, "a", [batch()] * 3, recipe("adamw"))
    own = {p.name for p in session.plan.tensors if p.protection == "per_task"}
    before, masks, capacity = values(session), session.cumulative_mask, session.capacity()
    importance, ended = session.importance("a"), logits(session, "a", batch()[0])
    with pytest.raises(ZeroDivisionError):
        learn(session, "b", breaking([batch(seed=5)] * 3), recipe("adamw"), num_classes=num_classes)
    after = values(session)
    assert not torch.equal(after["conv2.weight"], before["conv2.weight"])  # free weights did move
    assert all(torch.equal(after[name], before[name]) for name in own)
    assert all(torch.equal(after[name], before[name]) for name in after if name.endswith("embedding"))
    assert session.tasks == ("a",)
    assert session.capacity() == capacity
    assert all(torch.equal(mask, session.cumulative_mask[name]) for name, mask in masks.items())
    assert all(torch.equal(value, session.importance("a")[name]) for name, value in importance.items())
    if spec == "hat":
        assert torch.equal(logits(session, "a", batch()[0]), ended)


def test_a_failed_task_may_be_tried_again_and_protects_no_longer(session: fh.Session) -> None:
    how = Recipe(AdamW, 1e-3, keep=True)
    with pytest.raises(ZeroDivisionError):
        learn(session, "b", breaking([batch()]), how)
    optimizer = how.optimizer(session)
    with session.use("a"), pytest.raises(UnprotectedOptimizerError):
        step(session, optimizer)
    learn(session, "b", [batch()], recipe("adamw"))
    assert session.tasks == ("a", "b")


def test_a_failed_begin_leaves_no_task_running(session: fh.Session, monkeypatch: pytest.MonkeyPatch) -> None:
    before = values(session)
    monkeypatch.setattr("torch.nn.Linear.reset_parameters", lambda self: 1 / 0)
    with pytest.raises(ZeroDivisionError), session.task("b", num_classes=7):
        pass
    monkeypatch.undo()
    assert all(torch.equal(value, before[name]) for name, value in values(session).items())
    learn(session, "b", [batch()], recipe("adamw"))


def test_a_task_that_ends_in_nan_is_not_stored(session: fh.Session) -> None:
    ended = logits(session, "a", batch()[0])
    x, y = batch()
    with pytest.raises(NonFiniteError, match=r"head\.bias"):
        learn(session, "b", [(x, y)], Recipe(Spoil, 1e-3))
    assert session.tasks == ("a",)
    assert torch.equal(logits(session, "a", batch()[0]), ended)


def test_callbacks_are_called_at_the_end_or_at_the_abort() -> None:
    events: list[str] = []

    class Listener(fh.Callback):
        def on_task_start(self, context: fh.TaskContext) -> None:
            events.append(f"start {context.task} {context.number}")

        def on_task_end(self, context: fh.TaskContext) -> None:
            events.append(f"end {sorted(context.record.masks)}")
            if context.task == "broken":
                raise ZeroDivisionError

        def on_task_abort(self, context: fh.TaskContext) -> None:
            events.append("abort")

    session = fh.attach(Net(), None, batch(1)[0], [fh.GradientAdjustCallback(), Listener()])
    learn(session, "fine", [batch()], recipe("sgd"))
    with pytest.raises(ZeroDivisionError):
        learn(session, "broken", [batch()], recipe("sgd"))
    names = "end ['conv1', 'conv2', 'hidden']"
    assert events == ["start fine 1", names, "start broken 2", names, "abort"]
    assert session.tasks == ("fine",)


# ------------------------------------------------------------------ around a step
def test_frozen_parameters_have_their_gradients_again_after_the_step(session: fh.Session) -> None:
    scale = session.model.get_parameter("scale")
    before = scale.detach().clone()
    with session.task("b") as task:
        optimizer = task.protect(AdamW([*session.model.parameters()], 1e-2, weight_decay=0.5))
        task.anneal(1, 1)
        step(session, optimizer)
        assert scale.grad is not None
        assert scale.grad.any()
    assert torch.equal(scale, before)


def test_an_optimizer_that_moves_parameters_without_gradient_is_refused(session: fh.Session) -> None:
    how = Recipe(lambda _: Decay(session.model.parameters()), 1e-3)
    with pytest.raises(OptimizerError, match="'scale' although it had no gradient"):
        learn(session, "b", [batch()], how)


def test_a_closure_works_with_hard_hat(session: fh.Session) -> None:
    ended, x, y = logits(session, "a", batch()[0]), *batch(seed=3)
    before = session.model.get_parameter("conv2.weight").detach().clone()
    with session.task("b") as task:
        optimizer = task.protect(LBFGS([*session.model.parameters()], lr=0.1, max_iter=3))
        task.anneal(1, 1)

        def closure() -> float:
            optimizer.zero_grad()
            loss = F.cross_entropy(session.model.train()(x), y)
            loss.backward()
            return loss.item()

        optimizer.step(closure)
    assert not torch.equal(session.model.get_parameter("conv2.weight"), before)
    assert torch.equal(logits(session, "a", batch()[0]), ended)


def test_protecting_twice_is_protecting_once(session: fh.Session) -> None:
    counted = []

    class Counter(fh.Callback):
        def on_before_optimizer_step(self, context: fh.TaskContext, optimizer: Optimizer) -> None:
            counted.append(optimizer)

    session.detach()
    session = fh.attach(session.model, None, batch(1)[0], [Counter()])
    with session.task("a") as task:
        optimizer = recipe("sgd").optimizer(session)
        assert not task.protects(optimizer)
        assert task.protect(task.protect(optimizer)) is optimizer
        assert task.protects(optimizer)
        task.anneal(1, 1)
        step(session, optimizer)
    assert counted == [optimizer]


def test_embeddings_stay_within_their_bound() -> None:
    session = fh.attach(Net(), {"gates": {"embedding_clamp": 0.5}}, batch(1)[0])
    with session.task("a") as task:
        optimizer = task.protect(SGD(session.parameter_groups(lr=0.01, gate_lr=100.0)))
        for x, y in task.batches([batch()] * 2):
            (F.cross_entropy(session.model(x), y) + task.regularization()).backward()
            optimizer.step()
            largest = max(p.abs().max().item() for p in optimizer.param_groups[1]["params"])
            assert 0 < largest <= 0.5


def test_weights_and_gates_may_have_optimizers_of_their_own(session: fh.Session) -> None:
    ended = logits(session, "a", batch()[0])
    with session.task("b") as task:
        own, gates = session.parameter_groups(lr=0.01)
        one, two = task.protect(AdamW([own])), task.protect(SGD([gates]))
        for x, y in task.batches([batch(seed=2)] * 2):
            F.cross_entropy(session.model(x), y).backward()
            one.step()
            two.step()
    assert torch.equal(logits(session, "a", batch()[0]), ended)


# ------------------------------------------------------------------ annealing and the loss term
def test_batches_anneal_from_one_over_the_largest_scale_to_it() -> None:
    session = fh.attach(Net(), {"gates": {"s_max": 100.0}}, batch(1)[0])
    with session.task("a") as task:
        scales = [gates(session)[0].context.scale.item() for _ in task.batches(range(5))]
        assert [task.anneal(b, 5) for b in range(1, 6)] == pytest.approx(scales)
    assert scales[0] == pytest.approx(0.01)
    assert scales[-1] == 100.0
    assert scales == sorted(scales)


def test_batches_anneal_by_the_power_of_the_spec() -> None:
    session = fh.attach(Net(), {"gates": {"s_max": 100.0, "annealing_power": 2.0}}, batch(1)[0])
    with session.task("a") as task:
        scales = [gates(session)[0].context.scale.item() for _ in task.batches(range(5))]
    assert scales == pytest.approx([0.01 + 99.99 * place**2 for place in (0, 0.25, 0.5, 0.75, 1)])


@pytest.mark.parametrize("factor", [0.0, 2.0])
def test_regularization_is_the_mean_of_the_mask_at_first(factor: float) -> None:
    session = fh.attach(Net(), {"regularization": {"factor": factor}}, batch(1)[0])
    with session.task("a") as task:
        scale, embeddings = task.anneal(3, 5), [gate.embedding for gate in gates(session)]
        term = task.regularization()
        mask = torch.cat([torch.sigmoid(scale * e) for e in embeddings])
        torch.testing.assert_close(term, factor * mask.mean())
        term.backward()
        assert all(e.grad is not None and bool(e.grad.any()) == (factor > 0) for e in embeddings)


def test_regularization_counts_only_units_that_are_free(session: fh.Session) -> None:
    free = ~torch.cat(list(session.cumulative_mask.values()))
    with session.task("b") as task:
        scale = task.anneal(5, 5)
        mask = torch.cat(
            [
                torch.sigmoid(scale * session.model.get_parameter(f"{n}.hat_gate.embedding"))
                for n in session.graph.layers
            ]
        )
        torch.testing.assert_close(task.regularization(), 0.75 * mask[free].sum() / free.sum())


@pytest.mark.parametrize("mode", ["original", "cross"])
def test_regularization_with_a_budget_is_the_equation_with_a_budget(mode: str) -> None:
    spec = {"regularization": {"factor": 2.0, "mode": mode, "budget": 0.25}}
    session = fh.attach(Net(), spec, batch(1)[0])
    learn(session, "a", [batch()], recipe("sgd"))
    used = list(session.cumulative_mask.values())
    with session.task("b") as task:
        scale = task.anneal(5, 5)
        masks = [torch.sigmoid(scale * gate.embedding) for gate in gates(session)]
        term = task.regularization()
        torch.testing.assert_close(term, 2 * regularization(masks, used, mode, 0.25))
        term.backward()
        assert all(gate.embedding.grad is not None for gate in gates(session))


# ------------------------------------------------------------------ heads
def test_num_classes_gives_each_task_a_head_of_its_size() -> None:
    session = fh.attach(Net(), None, batch(1)[0])
    x, y = batch()
    for task, classes in {"five": 5, "default": None, "two": 2}.items():
        learn(session, task, [(x, y % (classes or 3))], recipe("adamw"), num_classes=classes)
        assert session.model.get_submodule("head").out_features == (classes or 3)
    assert [logits(session, t, x).shape[1] for t in session.tasks] == [5, 3, 2]
    with session.use("five"):
        assert session.model.get_submodule("head").out_features == 5
    assert session.model.get_submodule("head").out_features == 2


def test_every_task_but_the_first_starts_with_a_fresh_head(session: fh.Session) -> None:
    ended = session.model.get_parameter("head.weight").detach().clone()
    with session.task("b") as task:
        task.anneal(1, 1)
        assert not torch.equal(session.model.get_parameter("head.weight"), ended)


def test_a_model_of_several_heads_keeps_all_of_them() -> None:
    session = fh.attach(TwoHeads(), None, batch(1)[0])
    assert session.graph.heads == ("left", "right")
    seen = {}
    for task in "ab":
        with session.task(task) as running:
            optimizer = running.protect(recipe("adamw").optimizer(session))
            for x, y in running.batches([batch(seed=ord(task))] * 2):
                out = session.model(x)
                (F.cross_entropy(out["left"], y) + F.cross_entropy(out["right"], y)).backward()
                optimizer.step()
        with session.use(task):
            seen[task] = session.model(batch()[0])
    with session.use("a"):
        again = session.model(batch()[0])
    assert all(torch.equal(again[name], value) for name, value in seen["a"].items())


def test_a_task_cannot_be_used_after_its_end(session: fh.Session) -> None:
    with session.task("b") as task:
        task.anneal(1, 1)
    for call in (
        task.regularization,
        lambda: task.anneal(1, 1),
        lambda: task.protect(SGD(session.parameter_groups(lr=1))),
    ):
        with pytest.raises(NoTaskError, match=r"Use it inside its own block"):
            call()
    assert repr(task) == "Task('b', not running)"
