"""The dynamic proof: it holds for the optimizers of torch, and names the tensors that others change."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import ASGD, LBFGS, SGD, Adadelta, Adagrad, Adam, AdamW, NAdam, Optimizer, RAdam, RMSprop, Rprop

import fgadahat_hooks as fh
from fgadahat_hooks.errors import LeakError
from tests.support.learning import learn, recipe
from tests.support.small_models import Backwards, Functional, Net, TwoHeads, batch
from tests.verify.optimizers import (
    Hoarder,
    PastTheCounter,
    WithoutGradient,
)
from tests.verify.sessions import learnt

Groups = list[dict[str, Any]]


# ------------------------------------------------------------------ optimizers that keep finished tasks
OPTIMIZERS: dict[str, Callable[[Groups], Optimizer]] = {
    "sgd": SGD,
    "momentum": lambda g: SGD(g, lr=0.05, momentum=0.9, nesterov=True, weight_decay=0.1),
    "sgd foreach": partial(SGD, lr=0.05, momentum=0.9, foreach=True),
    "sgd fused": partial(SGD, lr=0.05, momentum=0.9, fused=True),
    "sgd maximize": partial(SGD, lr=0.01, maximize=True),
    "adam": partial(Adam, weight_decay=0.1, amsgrad=True),
    "adamw": partial(AdamW, lr=0.01, weight_decay=0.1),
    "adamw foreach": partial(AdamW, weight_decay=0.1, foreach=True),
    "adamw fused": partial(AdamW, weight_decay=0.1, fused=True),
    "adamw differentiable state": partial(AdamW, lr=torch.tensor(0.01), weight_decay=0.1),
    "rmsprop": partial(RMSprop, momentum=0.9, centered=True),
    "adagrad": Adagrad,
    "adadelta": Adadelta,
    "nadam": NAdam,
    "radam": RAdam,
    "asgd": ASGD,
    "rprop": Rprop,
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_holds_for_the_optimizers_of_torch(session: fh.Session, name: str) -> None:
    report = session.verify(batch(4)[0], optimizer=OPTIMIZERS[name], steps=2)
    assert report.leaks == {}
    assert report.training is not None
    assert report.training.overstepped == {}
    assert report.training.by_choice == {}
    assert report.training.moved > 0
    assert report.training.steps == 2
    assert f"with one {report.training.optimizer}" in str(report)
    assert f"{report.training.kept:,} protected ones" in str(report)


def test_an_optimizer_that_needs_a_closure_gets_one(session: fh.Session) -> None:
    calls: list[int] = []

    class Counted(LBFGS):
        def step(self, closure: Any) -> Any:  # type: ignore[override]
            def counted() -> Any:
                calls.append(1)
                return closure()

            return super().step(counted)  # type: ignore[no-untyped-call]

    report = session.verify(
        optimizer=lambda g: Counted([p for group in g for p in group["params"]], lr=0.1, max_iter=3), steps=2
    )
    assert report.leaks == {}
    assert len(calls) > 4  # two tasks of two steps, several calls each


@pytest.mark.parametrize("model", [Functional(), TwoHeads(), Backwards()], ids=lambda m: type(m).__name__)
def test_holds_for_all_kinds_of_models(model: nn.Module) -> None:
    session = fh.attach(model, None, batch(2)[0])
    for task in "ab":
        with session.task(task) as running:
            running.anneal(1, 1)
    assert session.verify(optimizer=AdamW, steps=2).leaks == {}


def test_counts_the_protected_elements_and_the_moved_ones() -> None:
    session = learnt(model=Backwards(), tasks="a")
    report = session.verify(optimizer=partial(SGD, lr=0.1), steps=3)
    assert report.training is not None
    stored_head = 3 * 12
    assert report.training.kept == report.kept + stored_head
    moved_at_most = 7 * 73 + 11 * 8 + 3 * 12 + 7 + 11 - report.kept
    assert 0.5 * moved_at_most < report.training.moved <= moved_at_most


def test_one_optimizer_steps_both_tasks_and_keeps_its_state(session: fh.Session) -> None:
    made: list[Optimizer] = []

    def make(groups: Groups) -> Optimizer:
        made.append(AdamW(groups))
        return made[-1]

    session.verify(optimizer=make, steps=3)
    assert len(made) == 1
    weight = next(p for p in made[0].param_groups[0]["params"] if p.shape == (8, 2, 3, 3))
    assert made[0].state[weight]["step"] == 6


def test_the_groups_are_those_of_an_optimizer_kept_since_the_first_task(session: fh.Session) -> None:
    seen: list[Groups] = []

    def make(groups: Groups) -> Optimizer:
        seen.append([dict(group) for group in groups])
        return SGD(groups, lr=0.1)

    session.verify(optimizer=make, steps=1)
    (own, gates) = seen[0]
    mine = {id(p) for p in session.model.parameters()}
    assert mine.isdisjoint(id(p) for p in own["params"])
    assert any(p.shape == (16,) and torch.equal(p, session.model.get_parameter("scale")) for p in own["params"])
    assert gates["weight_decay"] == 0.0
    assert {len(p) for p in gates["params"]} == {8, 16}
    assert "lr" not in own


# ------------------------------------------------------------------ leaks
@pytest.mark.parametrize("kind", [PastTheCounter, WithoutGradient])
def test_names_a_frozen_parameter_that_moves_without_a_gradient(session: fh.Session, kind: type[SGD]) -> None:
    with pytest.raises(LeakError) as caught:
        session.verify(optimizer=partial(kind, lr=0.01))
    text = str(caught.value)
    assert f"when {kind.__name__} learns another task" in text
    assert "scale: changes 'a', 'b'; 16 protected element(s) moved; policy frozen (rest: freeze)" in text
    assert "1 tensor(s) leak" in text
    assert ("was refused" in text) == (kind is WithoutGradient)


def test_names_gated_weights_that_an_optimizer_moves_outside_its_groups(session: fh.Session) -> None:
    with pytest.raises(LeakError) as caught:
        session.verify(optimizer=Hoarder)
    text = str(caught.value)
    for name in ("conv1.weight", "conv2.weight", "hidden.weight"):
        assert f"  {name}: changes 'a', 'b'; " in text
    assert "policy gated (adjustment rates, mode hat)" in text
    assert "head.weight" not in text  # every task has its own


def test_names_a_frozen_buffer_that_moves() -> None:
    session = learnt({"norms": "freeze"})

    class Restless(SGD):
        @torch.no_grad()
        def step(self, closure: Any = None) -> Any:
            super().step(closure)
            held = {id(p) for p in self.param_groups[0]["params"]}
            next(m.running_mean for m in modules if id(m.weight) in held).add_(1.0)

    modules: list[Any] = []
    seen = nn.BatchNorm2d._check_input_dim

    def watching(module: nn.BatchNorm2d, x: Tensor) -> None:
        modules.append(module)
        seen(module, x)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nn.BatchNorm2d, "_check_input_dim", watching)
        with pytest.raises(LeakError, match=r"bn1\.running_mean: changes 'a', 'b'; 8 protected element\(s\) moved"):
            session.verify(optimizer=partial(Restless, lr=0.01), steps=1)


class CountsForwards(nn.Module):
    """Counts its forwards in training, and uses the count in evaluation."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = nn.Linear(72, 8), nn.Linear(8, 3)
        self.seen = 0

    def forward(self, x: Tensor) -> Tensor:
        self.seen += self.training
        logits: Tensor = self.head(self.body(x.flatten(1)).relu() + 0.1 * self.seen)
        return logits


def test_finds_state_that_is_neither_parameter_nor_buffer() -> None:
    session = learnt(model=CountsForwards(), tasks="a")
    session.verify()
    with pytest.raises(LeakError, match=r"neither a parameter nor a buffer.*: changes 'a'"):
        session.verify(optimizer=SGD, steps=1)


def test_soft_rates_are_reported_as_a_choice() -> None:
    session = learnt({"adjustment": {"mode": "hat_const_alpha", "alpha": 0.1}})
    report = session.verify(optimizer=partial(SGD, lr=0.1))
    assert report.leaks == {}
    assert report.training is not None
    assert set(report.training.by_choice) <= {f"{n}.{p}" for n in session.graph.layers for p in ("weight", "bias")}
    assert set().union(*report.training.by_choice.values()) == {"a", "b"}
    assert "Task 'a': changed by choice" in str(report)
    assert "hat_const_alpha" in str(report)


def test_frozen_tensors_may_not_move_under_soft_rates() -> None:
    session = learnt({"adjustment": {"mode": "hat_const_1"}})
    with pytest.raises(LeakError, match=r"scale: .*policy frozen"):
        session.verify(optimizer=partial(PastTheCounter, lr=0.01))


def test_without_an_adjusting_callback_everything_gated_moves_by_choice() -> None:
    session = fh.attach(Net(), {}, batch(2)[0], callbacks=[])
    learn(session, "a", [batch()], recipe("sgd"))
    report = session.verify(optimizer=partial(SGD, lr=0.1))
    assert report.training is not None
    assert report.training.by_choice
    assert any("callbacks" in choice for choice in report.by_choice)
