"""Around a real optimizer step: callbacks exactly once, frozen parameters unchanged, embeddings within bounds."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

import fgadahat_hooks as fh
from fgadahat_hooks.errors import ForeignOptimizerError, NotAnnealedError, OptimizerError, UnprotectedOptimizerError
from tests.support.small import backward, batches, embeddings, learn, mlp, sgd, snapshot, train

X = torch.randn(2, 4, dtype=torch.float64)


class Counter(fh.Callback):
    """Records the optimizer of each step."""

    def __init__(self) -> None:
        self.before: list[Optimizer] = []
        self.after: list[Optimizer] = []

    def on_before_optimizer_step(self, context: fh.TaskContext, optimizer: Optimizer) -> None:
        self.before.append(optimizer)

    def on_after_optimizer_step(self, context: fh.TaskContext, optimizer: Optimizer) -> None:
        self.after.append(optimizer)


def attached(model: nn.Module | None = None, **spec: Any) -> tuple[fh.Session, Counter]:
    counter = Counter()
    callbacks = [counter, fh.GradientAdjustCallback()]
    return fh.attach(mlp(4, 6, 3) if model is None else model, spec, X, callbacks), counter


# ------------------------------------------------------------------ exactly once a real step
def test_accumulation_is_one_step() -> None:
    session, counter = attached()
    with session.task("a") as task:
        optimizer = task.protect(sgd(session.parameter_groups(lr=0.1)))
        for number, batch in enumerate(task.batches(batches(4, 3, count=6)), start=1):
            backward(session, task, batch)
            if number % 3 == 0:
                optimizer.step()
                optimizer.zero_grad()
    assert counter.before == counter.after == [optimizer] * 2


def test_a_step_that_the_scaler_skips_does_not_count() -> None:
    """With infinite gradients the scaler never calls the optimizer's step."""
    torch.set_default_dtype(torch.float32)
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3))
    counter = Counter()
    session = fh.attach(model, {}, torch.randn(2, 4), [counter, fh.GradientAdjustCallback()])
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    data = [(x.float(), y) for x, y in batches(4, 3, count=3)]
    learn(session, "a", data)
    counted = len(counter.before)
    with session.task("b") as task:
        optimizer = task.protect(sgd(session.parameter_groups(lr=0.1)))
        for number, (x, y) in enumerate(task.batches(data)):
            optimizer.zero_grad()
            before = snapshot(model)
            loss = nn.functional.cross_entropy(model(x), y) + task.regularization()
            scaler.scale(loss * (float("inf") if number == 1 else 1)).backward()
            scaler.step(optimizer)
            scaler.update()
            moved = any(not torch.equal(v, before[n]) for n, v in snapshot(model).items())
            assert moved == (number != 1)
    assert len(counter.before) - counted == len(counter.after) - counted == 2


def test_each_of_several_optimizers_counts_and_protecting_twice_is_once() -> None:
    session, counter = attached()
    with session.task("a") as task:
        own, gates = session.parameter_groups(lr=0.1)
        first, second = (task.protect(torch.optim.SGD([group])) for group in (own, gates))
        assert task.protect(first) is first
        for batch in task.batches(batches(4, 3, count=2)):
            backward(session, task, batch)
            first.step()
            second.step()
    assert counter.before == [first, second] * 2


def test_several_optimizers_need_all_embeddings_among_them() -> None:
    session, _ = attached(mlp(4, 6, 5, 3))
    with session.task("a") as task:
        own, gates = session.parameter_groups(lr=0.1)
        first = task.protect(torch.optim.SGD([own, {**gates, "params": gates["params"][:1]}]))
        task.anneal(1, 2)
        backward(session, task, batches(4, 3)[0])
        with pytest.raises(ForeignOptimizerError, match="embeddings of 1 layer"):
            first.step()
        second = task.protect(torch.optim.SGD([{**gates, "params": gates["params"][1:]}]))
        first.step()
        second.step()


def test_after_the_task_its_hooks_are_gone() -> None:
    session, counter = attached()
    with session.task("a") as task:
        optimizer = task.protect(sgd(session.parameter_groups(lr=0.1)))
        train(session, task, optimizer, batches(4, 3))
    counted = len(counter.before)
    session.detach()
    optimizer.step()
    assert len(counter.before) == counted


# ------------------------------------------------------------------ one optimizer kept across tasks
@pytest.mark.parametrize("kind", ["adam", "momentum"])
def test_a_kept_optimizer_loses_the_state_of_fresh_parameters_and_no_other(kind: str) -> None:
    session, _ = attached()
    groups = session.parameter_groups(lr=0.01)
    optimizer: Optimizer = torch.optim.Adam(groups) if kind == "adam" else torch.optim.SGD(groups, momentum=0.9)
    with session.task("a") as task:
        train(session, task, task.protect(optimizer), batches(4, 3, count=3))
    assert set(optimizer.state) == set(session.model.parameters())
    remembered = {p: {k: as_number(v) for k, v in s.items()} for p, s in optimizer.state.items()}
    with session.task("b") as task:
        task.protect(optimizer)
        fresh = {*embeddings(session), *session.model.get_submodule("2").parameters()}
        assert set(optimizer.state) == set(session.model.parameters()) - fresh
        assert all({k: as_number(v) for k, v in s.items()} == remembered[p] for p, s in optimizer.state.items())
        train(session, task, optimizer, batches(4, 3))


def as_number(value: Any) -> Any:
    return value.tolist() if isinstance(value, Tensor) else value


def test_a_kept_optimizer_gets_the_head_of_another_size() -> None:
    session, _ = attached()
    optimizer = torch.optim.Adam(session.parameter_groups(lr=0.01))
    for name, classes in (("a", 3), ("b", 7), ("c", 3), ("d", 2)):
        with session.task(name, num_classes=classes) as task:
            task.protect(optimizer)
            head = session.model.get_submodule("2")
            assert head.get_parameter("weight").shape == (classes, 6)
            held = [p for g in optimizer.param_groups for p in g["params"]]
            assert sum(p is head.get_parameter("weight") for p in held) == 1
            before = head.get_parameter("weight").detach().clone()
            train(session, task, optimizer, batches(4, classes))
            assert not torch.equal(head.get_parameter("weight"), before)
    shapes = []
    for name in "abcd":
        with session.use(name), torch.no_grad():
            shapes.append(session.model(X).shape[1])
    assert shapes == [3, 7, 3, 2]


# ------------------------------------------------------------------ frozen parameters
class Scaled(nn.Module):
    """Has a parameter of its own beside the layers."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(4, dtype=torch.float64))
        self.body = mlp(4, 6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x * self.scale)  # type: ignore[no-any-return]


@pytest.mark.parametrize("make", [sgd, torch.optim.AdamW], ids=["sgd", "adamw"])
def test_frozen_parameters_stay_after_the_first_task_in_an_optimizer_that_holds_them(make: Any) -> None:
    model = Scaled()
    session, _ = attached(model)
    optimizer = make([{**g, "weight_decay": 0.1} for g in session.parameter_groups(lr=0.1)])
    for name in ("a", "b"):
        before = model.scale.detach().clone()
        with session.task(name) as task:
            task.protect(optimizer)
            for batch in task.batches(batches(4, 3)):
                optimizer.zero_grad()
                backward(session, task, batch)
                grad = model.scale.grad
                optimizer.step()
                assert model.scale.grad is grad
                assert grad is not None
        assert torch.equal(model.scale, before) == (name == "b")
    assert not any(p is model.scale for p in session.parameter_groups(lr=0.1)[0]["params"])


class Pushy(torch.optim.SGD):
    """Moves every parameter, gradient or not."""

    def step(self, closure: Any = None) -> Any:
        with torch.no_grad():
            for group in self.param_groups:
                for p in group["params"]:
                    p.add_(1.0)


def test_an_optimizer_that_moves_a_parameter_without_gradient_is_refused() -> None:
    model = Scaled()
    session, _ = attached(model)
    learn(session, "a", batches(4, 3))
    with session.task("b") as task:
        optimizer = task.protect(Pushy([{"params": list(model.parameters())}], lr=0.1))
        task.anneal(1, 2)
        backward(session, task, batches(4, 3)[0])
        before, grad = model.scale.detach().clone(), model.scale.grad
        with pytest.raises(OptimizerError, match="Pushy changed the frozen parameter 'scale'"):
            optimizer.step()
        assert model.scale.grad is grad
        assert grad is not None
        assert model.scale.shape == before.shape


def test_a_closure_leaves_frozen_parameters_unchanged() -> None:
    model = Scaled()
    session, _ = attached(model)
    learn(session, "a", batches(4, 3))
    with session.task("b") as task:
        optimizer = task.protect(torch.optim.LBFGS(list(model.parameters()), lr=0.1, max_iter=2))
        task.anneal(1, 1)
        before = model.scale.detach().clone()

        def closure() -> Tensor:
            optimizer.zero_grad()
            return backward(session, task, batches(4, 3)[0])

        optimizer.step(closure)
        assert torch.equal(model.scale, before)


# ------------------------------------------------------------------ embeddings
def test_embeddings_stay_within_their_bounds() -> None:
    """Both bounds, from the draw on, and however far an optimizer would go."""
    session, _ = attached(gates={"embedding_clamp": 1.5})
    with session.task("a") as task:
        (embedding,) = embeddings(session)
        assert embedding.abs().max() <= 1.5
        optimizer = task.protect(sgd(session.parameter_groups(lr=0.1)))
        task.anneal(1, 2)
        embedding.grad = torch.tensor([1.0, -1.0, 1.0, -1.0, 0.0, 0.0], dtype=torch.float64) * 100
        before = embedding.detach().clone()
        optimizer.step()
        assert embedding.tolist() == [-1.5, 1.5, -1.5, 1.5, *before[4:].tolist()]


# ------------------------------------------------------------------ what is checked before anything moves
def test_a_refused_step_changes_nothing() -> None:
    session, counter = attached()
    learn(session, "a", batches(4, 3))
    with session.task("b") as task:
        protected = task.protect(sgd(session.parameter_groups(lr=0.1)))
        other = sgd(session.parameter_groups(lr=0.1))
        backward(session, task, batches(4, 3)[0])
        before, counted = snapshot(session.model), len(counter.before)
        with pytest.raises(NotAnnealedError):
            protected.step()
        task.anneal(1, 2)
        with pytest.raises(UnprotectedOptimizerError):
            other.step()
        assert all(torch.equal(v, before[n]) for n, v in snapshot(session.model).items())
        assert len(counter.before) == counted
        protected.step()
        assert len(counter.before) == counted + 1


def test_annealing_of_one_task_does_not_count_for_the_next() -> None:
    session, _ = attached()
    learn(session, "a", batches(4, 3))
    with session.task("b") as task:
        optimizer = task.protect(sgd(session.parameter_groups(lr=0.1)))
        backward(session, task, batches(4, 3)[0])
        with pytest.raises(NotAnnealedError):
            optimizer.step()


# ------------------------------------------------------------------ an optimizer kept for the next task
@pytest.mark.parametrize("kind", [torch.optim.AdamW, torch.optim.Adagrad, torch.optim.NAdam, torch.optim.Rprop])
def test_what_a_task_starts_anew_has_the_state_of_a_new_optimizer(kind: Any) -> None:
    session, _ = attached()
    with session.task("a") as task:
        optimizer = task.protect(kind(session.parameter_groups(lr=0.1)[0]["params"] + embeddings(session)))
        train(session, task, optimizer, batches(4, 3))
    gate, weight = embeddings(session)[0], session.model.get_parameter("0.weight")
    before = optimizer.state[weight]
    with session.task("b") as task:
        task.protect(optimizer)
        new = kind([gate])
        assert repr(optimizer.state.get(gate)) == repr(new.state.get(gate))
        assert optimizer.state[weight] is before
        train(session, task, optimizer, batches(4, 3))
