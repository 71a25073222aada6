"""Gains and biases of units: how a task begins with those of old units, and who keeps them."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import fgadahat_hooks as fh
from fgadahat_hooks.gates.gate import Gate
from tests.reference import plasticity as reference
from tests.support.ranks import Ranks

G = torch.Generator().manual_seed(7)
X, Y = torch.randn(64, 6, generator=G, dtype=torch.float64), torch.arange(64) % 3
SPEC = fh.preset("hat", tasks=4)


def mlp(bias: bool = True) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(6, 20), nn.ReLU(), nn.Linear(20, 12, bias=bias), nn.ReLU(), nn.Linear(12, 3)
    ).double()


def cnn() -> nn.Sequential:
    return nn.Sequential(
        nn.Unflatten(1, (1, 2, 3)), nn.Conv2d(1, 12, 2, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3)
    ).double()


def attach(make: Any = mlp, spec: Any = SPEC) -> fh.Session:
    torch.manual_seed(0)
    return fh.attach(make(), spec, X[:2])


def gates(session: fh.Session) -> dict[str, Gate]:
    return {m.name: m for m in session.model.modules() if isinstance(m, Gate)}


def step(session: fh.Session, optimizer: torch.optim.Optimizer, x: Tensor, y: Tensor) -> None:
    optimizer.zero_grad()
    F.cross_entropy(session.model(x), y).backward()
    optimizer.step()


def learn(session: fh.Session, name: str, batches: int = 3, x: Tensor = X, y: Tensor = Y) -> None:
    session.model.train()
    with session.task(name) as task:
        optimizer = task.protect(torch.optim.AdamW(session.parameter_groups(lr=1e-2)))
        for _ in task.batches(range(batches)):
            step(session, optimizer, x, y)
    session.model.eval()


def outputs(session: fh.Session, name: str) -> Tensor:
    with torch.no_grad(), session.use(name):
        found: Tensor = session.model(X)
    return found


def values_of(output: Tensor) -> Tensor:
    """Return all values of each unit, `(units, values)`; units are on axis 1."""
    return output.detach().transpose(0, 1).flatten(1)


def _keep(found: dict[str, Tensor], name: str) -> Any:
    def hook(_: nn.Module, __: Any, output: Tensor) -> None:
        found[name] = values_of(output)

    return hook


@pytest.mark.parametrize("make", [mlp, cnn])
def test_old_units_begin_at_the_scale_of_the_first_batch_and_new_ones_as_they_are(make: Any) -> None:
    session = attach(make)
    learn(session, "a")
    raw: dict[str, Tensor] = {}
    gated: dict[str, Tensor] = {}
    for name in session.masks("a"):
        layer = session.model.get_submodule(name)
        layer.register_forward_hook(_keep(gated, name))
        layer.register_forward_hook(_keep(raw, name), prepend=True)  # before the gate's own hook
    with session.task("b") as task:
        session.model.train()
        task.anneal(1, 1)
        session.model(X)
        for name, gate in gates(session).items():
            old = session.masks("a")[name]
            assert gate.gain is not None
            assert gate.bias is not None
            assert bool(old.any())
            for unit, is_old in enumerate(old.tolist()):
                expected = reference.calibrated(raw[name][unit].tolist(), 0.5) if is_old else (1.0, 0.0)
                assert (gate.gain[unit].item(), gate.bias[unit].item()) == pytest.approx(expected, rel=1e-9)
            assert gated[name][old].std(1, correction=0).tolist() == pytest.approx([0.5] * int(old.sum()))


@pytest.mark.parametrize("make", [mlp, cnn, lambda: mlp(bias=False)])
def test_finished_tasks_keep_their_bits_and_their_gains(make: Any, tmp_path: Path) -> None:
    session = attach(make)
    before = {}
    for name in "abc":
        learn(session, name)
        before[name] = outputs(session, name)
    assert all(torch.equal(outputs(session, name), value) for name, value in before.items())
    assert session.verify(X, optimizer=torch.optim.AdamW, steps=2).leaks == {}
    session.save(tmp_path / "run")
    loaded = fh.load(make(), tmp_path / "run", X[:2])
    assert all(torch.equal(outputs(loaded, name), value) for name, value in before.items())
    for name, value in before.items():
        assert torch.equal(session.export(name, inputs=X)(X), value)
        torch.testing.assert_close(session.export(name, inputs=X, compact=True)(X), value, rtol=1e-9, atol=1e-9)


def test_a_first_task_and_a_new_one_begin_without() -> None:
    session = attach()
    for gate in gates(session).values():
        assert gate.gain is not None
        assert torch.equal(gate.gain, torch.ones_like(gate.gain))
    learn(session, "a")
    moved = [gate.gain.detach().clone() for gate in gates(session).values() if gate.gain is not None]
    assert all(bool((gain != 1).any()) for gain in moved)
    with session.task("b"):
        assert all(bool((gate.gain == 1).all()) for gate in gates(session).values() if gate.gain is not None)


def test_small_batches_are_gathered_and_units_that_are_constant_left_alone() -> None:
    session = attach()
    learn(session, "a")
    gate, old = gates(session)["0"], session.masks("a")["0"]
    assert gate.gain is not None
    with session.task("b") as task:
        session.model.train()
        for count in range(1, 5):
            task.anneal(1, 1)
            session.model(X[4 * count : 4 * count + 4])
            assert bool((gate.gain[old] != 1).all()) == (count == 4)  # 16 values
        before = gate.gain.detach().clone()
        session.model(3 * X)
        assert torch.equal(gate.gain, before)
    with session.task("c") as task:
        task.anneal(1, 1)
        session.model(X[:1].repeat(16, 1))
        assert bool((gate.gain == 1).all())


def on_a_rank(rank: int) -> list[Tensor]:
    session = attach()
    learn(session, "a")
    return _after_the_first_forward(session, X[rank::2])


def _after_the_first_forward(session: fh.Session, x: Tensor) -> list[Tensor]:
    with session.task("b") as task:
        session.model.train()
        task.anneal(1, 1)
        session.model(x)
        return [value.detach().clone() for gate in gates(session).values() for value in (gate.gain, gate.bias)]  # type: ignore[union-attr]


def test_ranks_take_the_values_of_all(ranks: Ranks) -> None:
    first, second = ranks(on_a_rank)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    session = attach()
    learn(session, "a")
    for mine, theirs in zip(_after_the_first_forward(session, X), first, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-9, atol=1e-12)


def test_a_compiled_model_is_calibrated_before_its_first_step() -> None:
    sessions = []
    for compiles in (False, True):
        session = attach()
        if compiles:
            session.model.compile(backend="eager")
        learn(session, "a")
        learn(session, "b", batches=1)
        sessions.append(session)
    plain, compiled = sessions
    mine, theirs = gates(plain)["0"].gain, gates(compiled)["0"].gain
    old = plain.masks("a")["0"]
    assert mine is not None
    assert theirs is not None
    assert bool((theirs[old] < 0.8).any())
    # the first step's gradient was that of gains of 1, so that only their sizes are alike
    torch.testing.assert_close(mine[old], theirs[old], rtol=0, atol=0.25)


def test_a_copy_made_before_the_first_batch_runs() -> None:
    session = attach()
    learn(session, "a")
    with session.task("b"):
        copied = copy.deepcopy(session.model)
        assert all(m.calibration is None for m in copied.modules() if isinstance(m, Gate))


@pytest.mark.parametrize(
    "model", [nn.Sequential(nn.Linear(6, 8), nn.LayerNorm(8), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 3)), "none"]
)
def test_a_model_with_norms_has_none_and_no_spec_but_the_presets_asks_for_them(model: Any) -> None:
    spec = fh.AttachSpec() if model == "none" else SPEC
    session = fh.attach(mlp().float() if model == "none" else model, spec, X[:2].float())
    assert all(gate.gain is None for gate in gates(session).values())
    assert not any(name.endswith("gain") for name in session.model.state_dict())


def test_their_learning_rates() -> None:
    session = attach()
    learn(session, "a")
    for make, factor in ((torch.optim.Adam, 10.0), (torch.optim.SGD, 0.1)):
        with session.task(f"b {factor}") as task:
            session.model.train()
            optimizer = task.protect(make(session.parameter_groups(lr=1e-3)))
            task.anneal(1, 1)
            F.cross_entropy(session.model(X), Y).backward()
            gate = gates(session)["0"]
            assert gate.gain is not None
            assert gate.gain.grad is not None
            before, grad = gate.gain.detach().clone(), gate.gain.grad.clone()
            optimizer.step()
            expected = grad.sign() if factor == 10.0 else grad
            torch.testing.assert_close(before - gate.gain, 1e-3 * factor * expected, rtol=1e-2, atol=1e-9)


def test_an_optimizer_without_them_is_refused() -> None:
    session = attach()
    left_out = {id(gate.gain) for gate in gates(session).values()}
    parameters = [p for p in session.model.parameters() if id(p) not in left_out]
    with session.task("a") as task:
        optimizer = task.protect(torch.optim.SGD(parameters, lr=0.1))
        task.anneal(1, 1)
        with pytest.raises(fh.errors.ForeignOptimizerError, match="gains and biases of units of 2 layer"):
            step(session, optimizer, X, Y)
