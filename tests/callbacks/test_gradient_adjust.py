"""What the adjustment does around a step. Its numbers are compared with the reference in `tests/differential`."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.utils._python_dispatch import TorchDispatchMode

import fgadahat_hooks as fh
from fgadahat_hooks.errors import NonFiniteError, OptimizerError, SpecError
from tests.support.small import aborted, backward, batches, learn, mlp, sgd, snapshot, train

X = torch.randn(2, 4, dtype=torch.float64)
MODES: list[dict[str, Any]] = [
    {"mode": "fg_adahat", "intensity": 1e-3},
    {"mode": "adahat", "intensity": 1e-2},
    {"mode": "adahat_no_sum", "intensity": 1e-2},
    {"mode": "adahat_no_reg", "intensity": 1e-2},
    {"mode": "hat"},
    {"mode": "hat_random"},
    {"mode": "hat_const_alpha", "alpha": 0.5},
    {"mode": "hat_const_1"},
]


def attach(**adjustment: Any) -> fh.Session:
    """Attach a model with fixed weights."""
    torch.manual_seed(2)
    return fh.attach(mlp(4, 8, 6, 3), {"adjustment": adjustment}, X)


@pytest.mark.parametrize("adjustment", MODES, ids=lambda a: a["mode"])
@pytest.mark.parametrize("apply_to", ["update", "gradient"])
def test_the_first_task_is_trained_as_without_adjustment(adjustment: dict[str, Any], apply_to: str) -> None:
    """Every rate is 1 at t = 1, so all modes give one and the same network, bit for bit."""
    found = []
    for chosen in (adjustment, {"mode": "hat_const_1"}):
        session = attach(**{**chosen, "apply_to": apply_to})
        learn(session, "a", batches(4, 3, count=3))
        found.append(snapshot(session.model))
        assert (session.capacity() == 1) == (chosen["mode"] == "hat_const_1")
    assert all(torch.equal(v, found[1][n]) for n, v in found[0].items())


@pytest.mark.parametrize("apply_to", ["update", "gradient"])
def test_hat_random_draws_new_numbers_each_step_from_its_own_generator(apply_to: str) -> None:
    shares: list[list[Tensor]] = []
    for seed in (0, 0, 1):
        session = attach(mode="hat_random", apply_to=apply_to, seed=seed)
        learn(session, "a", batches(4, 3))
        used, run_shares = session.masks("a")["0"], []
        with session.task("b") as task:
            optimizer = task.protect(sgd(session.parameter_groups(lr=0.1)))
            task.anneal(1, 2)
            for batch in batches(4, 3, count=2):
                optimizer.zero_grad()
                backward(session, task, batch)
                layer, before = session.model.get_submodule("0"), snapshot(session.model)["0.bias"]
                grad = bias_gradient(layer)
                state = torch.get_rng_state()
                optimizer.step()
                assert torch.equal(torch.get_rng_state(), state)
                moved = (layer.get_parameter("bias").detach() - before) / (-0.1 * grad)
                run_shares.append(moved[used & (grad.abs() > 1e-6)])
                free = moved[~used & (grad.abs() > 1e-6)]
                torch.testing.assert_close(free, torch.ones_like(free), rtol=1e-6, atol=0)
        shares.append(run_shares)
    first, again, other = shares
    assert first[0].numel() > 0
    assert all(((s > 0) & (s < 1)).all() for s in first)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first[0], other[0])
    assert not torch.equal(first[0], first[1])


def bias_gradient(layer: torch.nn.Module) -> Tensor:
    grad = layer.get_parameter("bias").grad
    assert grad is not None
    return grad.clone()


def test_gradients_are_left_alone_when_updates_are_scaled() -> None:
    session = attach(mode="hat")
    learn(session, "a", batches(4, 3))
    with session.task("b") as task:
        optimizer = task.protect(sgd(session.parameter_groups(lr=0.1)))
        task.anneal(1, 2)
        backward(session, task, batches(4, 3)[0])
        before = {n: p.grad.clone() for n, p in session.model.named_parameters() if p.grad is not None}
        optimizer.step()
        after = {n: p.grad for n, p in session.model.named_parameters() if p.grad is not None}
    assert before.keys() == after.keys()
    assert all(torch.equal(before[n], after[n]) for n in before)


def test_a_parameter_without_gradient_stays_without_one() -> None:
    for apply_to in ("update", "gradient"):
        session = attach(mode="hat", apply_to=apply_to)
        learn(session, "a", batches(4, 3))
        with session.task("b") as task:
            optimizer = task.protect(sgd(session.parameter_groups(lr=0.1)))
            task.anneal(1, 2)
            optimizer.zero_grad()
            before = snapshot(session.model)
            optimizer.step()
        assert all(p.grad is None for p in session.model.parameters())
        own = {n for n in before if not n.endswith("embedding")}
        assert all(torch.equal(snapshot(session.model)[n], before[n]) for n in own)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_step_that_is_not_finite_leaves_softly_gated_weights_as_they_were(bad: float) -> None:
    torch.manual_seed(2)
    callbacks = [fh.GradientAdjustCallback(MODES[0])]
    session = fh.attach(mlp(4, 8, 6, 3), {"adjustment": MODES[0]}, X, callbacks)
    learn(session, "a", batches(4, 3))
    with session.task("b") as task:
        optimizer = task.protect(sgd(session.parameter_groups(lr=0.1)))
        task.anneal(1, 2)
        data = batches(4, 3, count=3)
        backward(session, task, data[0])
        weight = session.model.get_parameter("2.weight")
        assert weight.grad is not None
        weight.grad[0, 0] = bad
        before = snapshot(session.model)
        with pytest.raises(NonFiniteError) as caught:
            optimizer.step()
        assert str(caught.value) == (
            "The optimizer's step made 1 parameter(s) NaN or infinite, first '2.weight'. All gated weights are as "
            "before the step. Lower the learning rate, clip gradients, or skip batches with a bad loss."
        )
        after = snapshot(session.model)
        gated = [n for n in before if n[0] in "02" and "hat_gate" not in n]
        assert len(gated) == 4
        assert all(torch.equal(after[n], before[n]) for n in gated)
        optimizer.zero_grad()
        train(session, task, optimizer, data[1:])
    assert all(torch.isfinite(v).all() for v in snapshot(session.model).values())


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("adjustment", [{"mode": "hat"}, {"mode": "hat", "apply_to": "gradient"}], ids=str)
def test_a_step_that_is_not_finite_never_reaches_what_hat_protects(bad: float, adjustment: dict[str, Any]) -> None:
    """The entries are selected, not multiplied by 0; the step after is refused, and NaN goes with the task."""
    session = attach(**adjustment)
    learn(session, "a", batches(4, 3))
    before, data = snapshot(session.model), batches(4, 3)[0]
    used = session.masks("a")["2"][:, None] & session.masks("a")["0"][None]
    assert used.any()
    weight = session.model.get_parameter("2.weight")

    def learn_with_a_bad_step() -> None:
        with session.task("b") as task:
            optimizer = task.protect(sgd(session.parameter_groups(lr=0.1)))
            task.anneal(1, 2)
            backward(session, task, data)
            assert weight.grad is not None
            weight.grad.fill_(bad)
            optimizer.step()
            assert not weight[~used].isfinite().any()
            assert torch.equal(weight[used], before["2.weight"][used])
            optimizer.step()

    with pytest.raises(NonFiniteError) as caught:
        learn_with_a_bad_step()
    assert str(caught.value) == (
        "Step 1 of the task left 1 parameter(s) NaN or infinite, first '2.weight'. What finished tasks read is as it "
        "was. When the task's block is left, each of these goes back to its values before the task. Lower the learning "
        "rate, clip gradients, or skip batches with a bad loss."
    )
    assert torch.equal(session.model.get_parameter("2.weight"), before["2.weight"])


def test_hard_hat_copies_nothing_in_a_step_and_the_host_reads_nothing() -> None:
    session = attach(mode="hat")
    learn(session, "a", batches(4, 3))
    with session.task("b") as task:
        optimizer = task.protect(sgd(session.parameter_groups(lr=0.1)))
        task.anneal(1, 2)
        for _ in range(2):
            backward(session, task, batches(4, 3)[0])
            optimizer.step()
        backward(session, task, batches(4, 3)[0])
        with Operations() as seen:
            optimizer.step()
    assert seen.names["index_copy_"] == len(session.masks("a")) * 2
    assert not seen.names.keys() & {"clone", "copy_", "lerp", "_local_scalar_dense", "equal", "nonzero", "is_nonzero"}


class Operations(TorchDispatchMode):
    """Counts operations by name."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.names: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names[func.overloadpacket.__name__] += 1
        return func(*args, **(kwargs or {}))


def test_soft_rates_save_only_parameters_that_a_task_uses() -> None:
    session = attach(mode="adahat", intensity=0.1)
    with session.task("a"), torch.no_grad():
        for gate in session.embeddings.values():
            gate.fill_(1.0)
        session.embeddings["0"].fill_(-1.0)  # this task uses no unit of the first layer
    adjust = next(c for c in session.callbacks if isinstance(c, fh.GradientAdjustCallback))
    with session.task("b") as task:
        optimizer = task.protect(sgd(session.parameter_groups(lr=0.1)))
        task.anneal(1, 2)
        backward(session, task, batches(4, 3)[0])
        adjust.on_before_optimizer_step(task.context(), optimizer)
        assert [parameter.name for parameter in adjust._stepping] == ["2.bias"]


def test_a_closure_works_where_updates_are_scaled() -> None:
    """LBFGS evaluates the loss many times in one step; the protected weights are where they were after it."""
    session = attach(mode="hat")
    learn(session, "a", batches(4, 3))
    x, y = batches(4, 3)[0]
    with session.use("a"), torch.no_grad():
        expected = session.model(x)
    with session.task("b") as task:
        model = session.model
        optimizer = task.protect(torch.optim.LBFGS(list(model.parameters()), lr=0.1, max_iter=3))
        task.anneal(1, 1)

        def closure() -> Tensor:
            optimizer.zero_grad()
            loss = cross_entropy(model(x), y) + task.regularization()
            loss.backward()
            return loss

        before = snapshot(model)
        optimizer.step(closure)
        assert any(not torch.equal(v, before[n]) for n, v in snapshot(model).items())
    with session.use("a"), torch.no_grad():
        assert torch.equal(session.model(x), expected)


@pytest.mark.parametrize(
    ("spec", "keys"),
    [
        ({"adjustment": {"mode": "hat", "apply_to": "gradient"}}, "gradient_adjust"),
        ({"adjustment": {"mode": "fg_adahat"}}, "importance"),
        ({"adjustment": {"mode": "fg_adahat", "apply_to": "gradient"}}, "importance, gradient_adjust"),
    ],
)
def test_a_closure_is_refused_where_gradients_are_needed_before_the_step(spec: dict[str, Any], keys: str) -> None:
    session = fh.attach(mlp(4, 8, 3), spec, X)
    with session.task("a") as task:
        optimizer = task.protect(torch.optim.LBFGS(list(session.model.parameters())))
        task.anneal(1, 1)
        before = snapshot(session.model)
        with pytest.raises(OptimizerError) as caught:
            optimizer.step(lambda: torch.zeros(()))
        assert str(caught.value) == (
            "LBFGS.step was called with a closure, so gradients do not exist before the step, but "
            f"{keys} needs them then. Call backward() first and step() without a closure, or use a mode without "
            "importance and adjustment.apply_to: 'update'."
        )
        assert all(torch.equal(v, before[n]) for n, v in snapshot(session.model).items())


def test_only_parameters_that_the_optimizer_holds_are_touched() -> None:
    """Two optimizers on two halves: each step protects its own half, and both together equal one optimizer."""
    found = []
    for halves in (False, True):
        session = attach(mode="hat_const_alpha", alpha=0.5)
        learn(session, "a", batches(4, 3))
        torch.manual_seed(9)
        with session.task("b") as task:
            own, gates = session.parameter_groups(lr=0.1, gate_lr=0.01)
            split = [own["params"][:2], own["params"][2:]] if halves else [own["params"]]
            groups = [{**own, "params": params} for params in split]
            optimizers = [task.protect(torch.optim.SGD([g])) for g in [*groups, gates]]
            for batch in task.batches(batches(4, 3)):
                for optimizer in optimizers:
                    optimizer.zero_grad()
                backward(session, task, batch)
                for optimizer in optimizers:
                    optimizer.step()
        found.append(snapshot(session.model))
    assert all(torch.equal(v, found[1][n]) for n, v in found[0].items())


def test_only_hat_on_updates_is_hard() -> None:
    hard = [
        (mode["mode"], apply_to)
        for mode in MODES
        for apply_to in ("update", "gradient")
        if fh.GradientAdjustCallback({**mode, "apply_to": apply_to}).hard
    ]
    assert hard == [("hat", "update")]
    assert fh.GradientAdjustCallback().hard


def test_allows_closure_where_updates_are_scaled() -> None:
    assert fh.GradientAdjustCallback({"mode": "hat"}).allows_closure
    assert not fh.GradientAdjustCallback({"mode": "hat", "apply_to": "gradient"}).allows_closure


def test_wrong_blocks_are_refused() -> None:
    with pytest.raises(SpecError, match="alpha"):
        fh.GradientAdjustCallback({"mode": "hat_const_alpha"})
    with pytest.raises(SpecError, match="expected a mapping"):
        fh.GradientAdjustCallback("hat")


def test_a_task_after_an_abort_starts_with_fresh_rates() -> None:
    session = attach(mode="hat")
    learn(session, "a", batches(4, 3))
    with aborted(session, "b") as task:
        optimizer = task.protect(sgd(session.parameter_groups(lr=0.1)))
        train(session, task, optimizer, batches(4, 3))
    x = batches(4, 3)[0][0]
    with session.use("a"), torch.no_grad():
        expected = session.model(x)
    learn(session, "c", batches(4, 3))
    with session.use("a"), torch.no_grad():
        assert torch.equal(session.model(x), expected)
