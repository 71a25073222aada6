"""Learning rates by share: what a step does, and what nobody sees of it."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import fgadahat_hooks as fh
from fgadahat_hooks.errors import LearningWarning
from fgadahat_hooks.gates.open_shares import open_shares
from tests.reference import plasticity as reference

SPEC: dict[str, Any] = {
    "gates": {"choose": "share", "tasks": 3},
    "regularization": {"factor": 0.0},
    "plasticity": {"learning_rates": "by_share"},
}
X, Y = torch.randn(8, 6, generator=torch.Generator().manual_seed(1)), torch.arange(8) % 3


def session_of() -> fh.Session:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 20), nn.ReLU(), nn.Linear(20, 12), nn.ReLU(), nn.Linear(12, 3))
    return fh.attach(model.double(), SPEC, X[:2].double())


def step(session: fh.Session, task: fh.Task, optimizer: torch.optim.Optimizer) -> None:
    task.anneal(1, 1)
    optimizer.zero_grad()
    F.cross_entropy(session.model(X.double()), Y).backward()
    optimizer.step()


def expected_rates(session: fh.Session, lr: float) -> dict[str, float]:
    """Return the learning rate of each layer of the first task, by loops over its masks."""
    open_units = {name: {i for i, e in enumerate(v.tolist()) if e > 0} for name, v in session.embeddings.items()}
    rates = {}
    for name, inputs in (("0", 6), ("2", 20)):
        weight = session.model.get_submodule(name).get_parameter("weight").detach()
        std = float(weight.square().mean().sqrt())
        feeds: list[set[int]] = [{i} for i in range(inputs)] if name == "2" else [set()] * inputs
        f = reference.open_share(feeds, [name == "0"] * inputs, open_units["0"])
        p = len(open_units[name]) / len(weight)
        rates[name] = lr * reference.factor(lr, f, p, p, std, 8.0, 0.1)
    head = len(open_units["2"]) / 12
    return {**rates, "4": lr * min(8.0, 1 / head)}


def test_a_step_is_that_of_an_optimizer_with_these_rates() -> None:
    session, other = session_of(), session_of()
    for one in (session, other):
        torch.manual_seed(3)
        task = one.task("a").__enter__()
        if one is session:
            rates = expected_rates(one, 1e-3)
            optimizer: torch.optim.Optimizer = torch.optim.AdamW(one.parameter_groups(lr=1e-3, weight_decay=0.1))
            task.protect(optimizer)
            for _ in range(3):
                step(one, task, optimizer)
            continue
        model = one.model
        groups: list[dict[str, Any]] = [
            {"params": [*model.get_submodule(name)._parameters.values()], "lr": rate} for name, rate in rates.items()
        ]
        by_hand = torch.optim.AdamW(groups, weight_decay=0.1)
        task.anneal(1, 1)
        for _ in range(3):
            by_hand.zero_grad()
            F.cross_entropy(model(X.double()), Y).backward()
            _plain_step(by_hand)
    for name in ("0", "2", "4"):
        mine, theirs = session.model.get_submodule(name), other.model.get_submodule(name)
        torch.testing.assert_close(mine.get_parameter("weight"), theirs.get_parameter("weight"), rtol=1e-10, atol=1e-13)


def _plain_step(optimizer: torch.optim.Optimizer) -> None:
    """Step without the hooks that refuse an optimizer that is not protected."""
    with torch.no_grad():
        inspect.unwrap(type(optimizer).step)(optimizer)


def test_schedulers_and_checkpoints_see_the_groups_that_were_made() -> None:
    session = session_of()
    with session.task("a") as task:
        optimizer = task.protect(torch.optim.AdamW(session.parameter_groups(lr=1e-3)))
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda epoch: 0.5**epoch)
        groups = optimizer.param_groups
        step(session, task, optimizer)
        scheduler.step()
        assert optimizer.param_groups is groups
        assert [group["lr"] for group in groups] == [5e-4, 5e-3]
        assert len(optimizer.state_dict()["param_groups"]) == 2


def test_other_optimizers_are_left_alone() -> None:
    session = session_of()
    weights = []
    with session.task("a") as task:
        optimizer = task.protect(torch.optim.Adagrad(session.parameter_groups(lr=0.1)))
        weight = session.model.get_submodule("0").get_parameter("weight")
        before = weight.detach().clone()
        with pytest.warns(LearningWarning, match="Adagrad keeps its learning rates"):
            step(session, task, optimizer)
        assert weight.grad is not None
        weights.append(weight.detach().clone())
        torch.testing.assert_close(weights[0], before - 0.1 * weight.grad.sign(), rtol=1e-6, atol=1e-6)


def test_sgd_learns_by_the_share_that_can_learn() -> None:
    session = session_of()
    for name in "ab":
        with session.task(name) as task:
            optimizer = task.protect(torch.optim.SGD(session.parameter_groups(lr=0.1)))
            masks = {n: [i for i, e in enumerate(v.tolist()) if e > 0] for n, v in session.embeddings.items()}
            used = {n: set(v.nonzero().flatten().tolist()) for n, v in session.cumulative_mask.items()}
            expected = {}
            for layer, feeding in (("0", None), ("2", "0")):
                units = len(session.embeddings[layer])
                f = 1.0 if feeding is None else len(masks[feeding]) / len(session.embeddings[feeding])
                new = len(set(masks[layer]) - used[layer]) / units
                expected[layer] = 0.1 * reference.gradient_factor(0.1, f, len(masks[layer]) / units, new, 8.0)
            before = {n: session.model.get_submodule(n).get_parameter("weight").detach().clone() for n in expected}
            step(session, task, optimizer)
            for layer, rate in expected.items():
                weight = session.model.get_submodule(layer).get_parameter("weight")
                free = [i for i in range(len(weight)) if i not in used[layer]]
                moved = before[layer][free] - weight.detach()[free]
                assert weight.grad is not None
                torch.testing.assert_close(moved, rate * weight.grad[free], rtol=1e-10, atol=1e-13)


def test_a_step_that_raises_leaves_no_split_groups_for_the_next() -> None:
    session = session_of()
    with session.task("a") as task:
        optimizer = task.protect(torch.optim.AdamW(session.parameter_groups(lr=1e-3)))
        groups = optimizer.param_groups
        bad = session.model.get_submodule("0").get_parameter("weight")
        step(session, task, optimizer)
        optimizer.state[bad].pop("exp_avg")
        with pytest.raises(KeyError):
            step(session, task, optimizer)
        optimizer.state.pop(bad)
        step(session, task, optimizer)
        assert optimizer.param_groups is groups


def test_an_error_in_a_step_leaves_the_groups_as_they_were_made() -> None:
    session = session_of()
    optimizer = torch.optim.AdamW(session.parameter_groups(lr=1e-3))
    groups = optimizer.param_groups
    with session.task("a") as task:
        task.protect(optimizer)
        step(session, task, optimizer)
        optimizer.state[session.model.get_submodule("0").get_parameter("weight")].pop("exp_avg")
        with pytest.raises(KeyError):
            step(session, task, optimizer)
    assert optimizer.param_groups is groups


class Counting(torch.optim.AdamW):
    """Keeps a count in its groups, drops an entry of them, and halves its learning rate."""

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        for group in self.param_groups:
            group["steps"] = group.get("steps", 0) + 1
            group.pop("name", None)
            group["lr"] = self.rate(group["lr"])
        return super().step(closure)

    def rate(self, lr: float) -> float:
        return lr / 2


class Setting(Counting):
    """Sets its learning rate."""

    def rate(self, lr: float) -> float:
        return 0.25


def test_what_a_step_writes_into_its_groups_is_kept() -> None:
    session = session_of()
    with session.task("a") as task:
        optimizer = task.protect(Counting([{"params": session.model.parameters(), "name": "all"}], lr=1e-2))
        for _ in range(2):
            step(session, task, optimizer)
        group = optimizer.param_groups[0]
        assert (group["steps"], group["lr"], "name" in group) == (2, pytest.approx(2.5e-3), False)
        other = task.protect(Setting(session.model.parameters(), lr=1e-2))
        with pytest.warns(LearningWarning, match="Setting sets its learning rate within step"):
            step(session, task, other)
        assert other.param_groups[0]["lr"] == 0.25


def stepped(inside: bool) -> nn.Parameter:
    """Return a weight after a step with a closure whose learning rate is set inside the closure, or before."""
    session = session_of()
    torch.manual_seed(3)
    with session.task("a") as task:
        optimizer = task.protect(torch.optim.AdamW(session.parameter_groups(lr=1e-3)))
        task.anneal(1, 1)

        def closure() -> Any:
            assert len(optimizer.param_groups) == 2
            if inside:
                optimizer.param_groups[0]["lr"] = 1e-2
            optimizer.zero_grad()
            loss = F.cross_entropy(session.model(X.double()), Y)
            loss.backward()
            return loss

        optimizer.param_groups[0]["lr"] = 1e-3 if inside else 1e-2
        optimizer.step(closure)
        assert optimizer.param_groups[0]["lr"] == 1e-2
    return session.model.get_submodule("2").get_parameter("weight")


def test_a_closure_sees_and_sets_the_groups_that_were_made() -> None:
    assert torch.equal(stepped(inside=True), stepped(inside=False))


def test_shares_are_counted_under_the_hard_masks() -> None:
    session = session_of()
    with session.task("a"):
        shares = open_shares(session._attached, session._sequence.state)
        for name, embedding in session.embeddings.items():
            assert shares[name].units == shares[name].new == pytest.approx(float((embedding > 0).double().mean()))
        assert shares["0"].inputs == 1.0
        assert shares["2"].inputs == pytest.approx(shares["0"].units)
