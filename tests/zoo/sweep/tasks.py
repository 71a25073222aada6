"""Two tasks one after the other, and whether the first one's logits are the same bits after the second."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import fgadahat_hooks as fh
from fgadahat_hooks.graph.tracing.forward import call_model
from tests.support.learning import Recipe
from tests.zoo.sweep.row import Kept
from tests.zoo.sweep.subject import CLASSES, Subject, answers

LOOK = 3
"""Samples that every task is looked at with."""
SPREAD = 1e-5
"""Logits of different samples differ at least by this share of the largest, or they could not show a leak."""
REACH = 1e-6
"""A layer reaches the logits if doubling one of its weights moves them by this share of the largest."""


class VacuousError(Exception):
    """What was trained could not show a leak."""


def learn_two(session: fh.Session, subject: Subject, how: Recipe) -> Kept:
    """Learn two tasks and compare the first one's logits before and after the second.

    Raises:
        VacuousError: The logits, masks or weights are such that no leak could be seen.
    """
    before = gated_weights(session)
    learn(session, "birds", subject, how, seed=10)
    moved = sum(not torch.equal(v, session.model.get_parameter(n)) for n, v in before.items()) / len(before)
    ended = logits(session, "birds", subject)
    _check_telling(session, ended)
    telling = reached(session, subject)
    learn(session, "cars", subject, how, seed=20)
    after = logits(session, "birds", subject)
    worst = max(float((a - b).abs().max()) for a, b in zip(ended, after, strict=True))
    equal = all(torch.equal(a, b) for a, b in zip(ended, after, strict=True))
    return Kept(equal, worst, moved, telling)


def learn(session: fh.Session, task: str, subject: Subject, how: Recipe, seed: int) -> None:
    """Learn one task on random samples, every output of the model against the same labels."""
    batches = [subject.inputs(subject.batch, seed + k) for k in range(subject.steps)]
    with session.task(task) as running:
        optimizer = running.protect(how.optimizer(session))
        session.model.train()
        for x in running.batches(batches):
            optimizer.zero_grad()
            loss = loss_of(call_model(session.model, x)) + running.regularization()
            loss.backward()
            if not math.isfinite(loss.item()):
                raise VacuousError(f"The loss of task '{task}' is {loss.item()}.")
            optimizer.step()
        optimizer.zero_grad()


def loss_of(output: object) -> Tensor:
    """Return the mean cross-entropy of all outputs, the classes over all but the first axis."""
    terms = [F.cross_entropy(t, torch.arange(len(t)) % min(CLASSES, t.shape[1])) for t in map(_flat, answers(output))]
    return torch.stack(terms).mean()


def _flat(logits: Tensor) -> Tensor:
    return logits.flatten(1)


def logits(session: fh.Session, task: str, subject: Subject) -> list[Tensor]:
    """Return the evaluation logits of a finished task."""
    session.model.eval()
    with torch.no_grad(), session.use(task):
        return [t.clone() for t in answers(call_model(session.model, subject.inputs(LOOK, 99)))]


def gated_weights(session: fh.Session) -> dict[str, Tensor]:
    """Return copies of all gated weights."""
    names = (f"{name}.weight" for name in session.graph.layers)
    return {name: session.model.get_parameter(name).detach().clone() for name in names}


def reached(session: fh.Session, subject: Subject) -> float:
    """Return the share of the gated layers, frozen ones apart, with a weight that moves the first task's logits."""
    layers: dict[str, nn.Module] = {name: session.model.get_submodule(name) for name in session.graph.layers}
    weights = [w for module in layers.values() if (w := module.get_parameter("weight")).requires_grad]
    session.model.eval()
    with session.use("birds"):
        out = answers(call_model(session.model, subject.inputs(LOOK, 99)))
        directions = [torch.randn(t.shape, generator=torch.Generator().manual_seed(0)).to(t) for t in out]
        total = torch.stack([(t * d).sum() for t, d in zip(out, directions, strict=True)]).sum()
        slopes = torch.autograd.grad(total, weights, allow_unused=True)
    size = max(float(t.detach().abs().max()) for t in out)
    found = [
        g is not None and float((g * w).detach().abs().max()) > REACH * size
        for g, w in zip(slopes, weights, strict=True)
    ]
    return sum(found) / len(found)


def _check_telling(session: fh.Session, ended: list[Tensor]) -> None:
    """Refuse logits that are alike for all samples or not finite, and masks that are empty or full."""
    for t in ended:
        spread = (t - t[0])[1:].flatten(1).abs().amax(1).min() / t.abs().max()
        if not torch.isfinite(t).all() or not spread > SPREAD:
            raise VacuousError(f"Logits of different samples differ by {float(spread):.1e} of the largest.")
    used = torch.cat(list(session.masks("birds").values()))
    if not 0 < int(used.sum()) < used.numel():
        raise VacuousError(f"The task uses {int(used.sum())} of {used.numel()} units.")
