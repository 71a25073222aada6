"""`apply_to: update`: a rate is the same fraction of the step under every optimizer."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import SGD, Adagrad, Adam, AdamW, Optimizer, RMSprop

import fgadahat_hooks as fh
from tests.support.small import backward, batches, learn, mlp, snapshot

MAKERS: dict[str, Callable[[Any], Optimizer]] = {
    "sgd": SGD,
    "sgd_decay": lambda groups: SGD(decayed(groups)),
    "momentum": lambda groups: SGD(decayed(groups), momentum=0.9),
    "nesterov": lambda groups: SGD(groups, momentum=0.9, nesterov=True),
    "adam": Adam,
    "adam_decay": lambda groups: Adam(decayed(groups)),
    "adamw": lambda groups: AdamW(decayed(groups)),
    "amsgrad": lambda groups: Adam(groups, amsgrad=True),
    "adagrad": Adagrad,
    "rmsprop": RMSprop,
    "rmsprop_momentum": lambda groups: RMSprop(groups, momentum=0.9),
}
SOFT = [
    {"mode": "fg_adahat", "intensity": 1e-2},
    {"mode": "fg_adahat", "intensity": 1e-2, "aggregation": "mean", "scheduler": "summative_mask_sparsity_reg"},
    {"mode": "adahat", "intensity": 0.1},
    {"mode": "hat_const_alpha", "alpha": 0.25},
]


def decayed(groups: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Add weight decay to the model's own group."""
    return [{**groups[0], "weight_decay": 0.1}, *groups[1:]]


class Probe(fh.Callback):
    """Keeps the rates of the last step."""

    priority = 80
    rates: dict[str, Tensor]

    def __init__(self, adjustment: dict[str, Any]) -> None:
        self._adjustment = adjustment

    def on_before_optimizer_step(self, context: fh.TaskContext, optimizer: Optimizer) -> None:
        self.rates = {
            name: rate.clone() for name, rate in fh.GradientAdjustCallback(self._adjustment).rates(context).items()
        }


def prepared(adjustment: dict[str, Any]) -> tuple[fh.Session, Probe]:
    """Return a session with one task learnt with plain SGD, so that it is the same for every optimizer."""
    torch.manual_seed(1)
    probe = Probe(adjustment)
    callbacks = [
        fh.ImportanceCallback(),
        fh.SummationCallback(),
        probe,
        fh.GradientAdjustCallback(adjustment),
    ]
    session = fh.attach(mlp(4, 8, 6, 3), {"adjustment": adjustment}, torch.randn(2, 4).double(), callbacks)
    learn(session, "first", batches(4, 3))
    return session, probe


def free_step(model: nn.Module, optimizer: Optimizer) -> dict[str, Tensor]:
    """Take the step on unprotected copies of all parameters; return the copies by name."""
    copies = {p: p.detach().clone() for p in model.parameters()}
    for p, copied in copies.items():
        copied.grad = None if p.grad is None else p.grad.clone()
    make: Any = type(optimizer)
    twin = make([{**g, "params": [copies[p] for p in g["params"]]} for g in optimizer.param_groups])
    twin.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    twin.step()
    return {name: copies[p] for name, p in model.named_parameters()}


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
@pytest.mark.parametrize("adjustment", SOFT, ids=lambda a: "-".join(map(str, a.values())))
def test_a_weight_moves_by_its_rate_times_the_free_step(
    make: Callable[[Any], Optimizer], adjustment: dict[str, Any]
) -> None:
    session, probe = prepared(adjustment)
    held_back = 0
    with session.task("second") as task:
        optimizer = task.protect(make(session.parameter_groups(lr=0.01)))
        for batch in task.batches(batches(4, 3, count=3)):
            optimizer.zero_grad()
            backward(session, task, batch)
            before, free = snapshot(session.model), free_step(session.model, optimizer)
            optimizer.step()
            held_back += check_shares(session.model, free, before, probe.rates)
    assert held_back > 0


def check_shares(model: nn.Module, free: dict[str, Tensor], before: dict[str, Tensor], rates: dict[str, Tensor]) -> int:
    """Compare each parameter's step with the rate times the free step, the head's with the whole free step.

    Returns:
        Number of entries that would have moved and were held back to less than half of it.
    """
    held_back = 0
    for name, parameter in model.named_parameters():
        if "hat_gate" not in name:
            step = free[name] - before[name]
            rate = rates.get(name, torch.ones(()))
            torch.testing.assert_close(parameter.detach(), before[name] + rate * step, rtol=0, atol=1e-15)
            held_back += int(((rate < 1 / 2) & (step != 0)).sum())
    return held_back


def test_rates_do_not_depend_on_the_optimizer() -> None:
    """Rates of the first step of a task depend on earlier tasks and the drawn embeddings alone."""
    found = []
    for make in MAKERS.values():
        session, probe = prepared(SOFT[0])
        with session.task("second") as task:
            optimizer = task.protect(make(session.parameter_groups(lr=0.01)))
            for batch in task.batches(batches(4, 3, count=1)):
                backward(session, task, batch)
                optimizer.step()
        found.append(probe.rates)
    for rates in found[1:]:
        assert rates.keys() == found[0].keys()
        assert all(torch.equal(rates[name], found[0][name]) for name in rates)


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
@pytest.mark.parametrize("kept", [False, True], ids=["new", "kept"])
def test_rate_zero_keeps_every_bit(make: Callable[[Any], Optimizer], kept: bool) -> None:
    """Weights between used units keep their bits, under weight decay and momentum kept from earlier tasks too."""
    session = fh.attach(mlp(4, 8, 6, 3), {"adjustment": {"mode": "hat"}}, torch.randn(2, 4).double())
    x = torch.randn(7, 4, dtype=torch.float64)
    optimizer = make(session.parameter_groups(lr=0.05, gate_lr=0.01))
    logits: dict[str, Tensor] = {}
    for name in ("a", "b", "c"):
        before, protected = snapshot(session.model), session.cumulative_mask
        with session.task(name) as task:
            if not kept:
                optimizer = make(session.parameter_groups(lr=0.05, gate_lr=0.01))
            task.protect(optimizer)
            for batch in task.batches(batches(4, 3, count=4)):
                optimizer.zero_grad()
                backward(session, task, batch)
                optimizer.step()
        for layer, used in protected.items():
            assert used.any() == bool(logits)
            assert torch.equal(session.model.get_parameter(f"{layer}.bias")[used], before[f"{layer}.bias"][used])
        between = before["2.weight"][protected["2"]][:, protected["0"]]
        assert torch.equal(session.model.get_parameter("2.weight")[protected["2"]][:, protected["0"]], between)
        for earlier_task, expected in logits.items():
            with session.use(earlier_task), torch.no_grad():
                assert torch.equal(session.model(x), expected)
        with session.use(name), torch.no_grad():
            logits[name] = session.model(x)


def test_the_same_choice_on_the_gradient_leaks_under_momentum_and_decay() -> None:
    """Why the update is the default: a gradient of 0 does not stop a step that momentum or decay makes."""
    spec = {"adjustment": {"mode": "hat", "apply_to": "gradient"}}
    session = fh.attach(mlp(4, 8, 6, 3), spec, torch.randn(2, 4).double())
    learn(session, "a", batches(4, 3))
    used = session.masks("a")["0"]
    before = snapshot(session.model)
    learn(session, "b", batches(4, 3), make=MAKERS["adamw"])
    assert not torch.equal(session.model.get_parameter("0.bias")[used], before["0.bias"][used])
