"""Hard HAT forgets nothing, bit for bit, on models of every layer type."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import fgadahat_hooks as fh
from tests.support.layer_models import SUBJECTS, Subject
from tests.support.learning import learn, logits, recipe

STEPS = 3


def learnt(session: fh.Session, subject: Subject, task: str, optimizer: str, seed: int) -> Tensor:
    """Learn a task, make sure that gated weights moved and units are left, and return its logits."""
    names = [p.name for p in session.plan.tensors if p.protection == "gated"]
    before = {name: session.model.get_parameter(name).detach().clone() for name in names}
    learn(session, task, [subject.batch(seed=seed + k) for k in range(STEPS)], recipe(optimizer))
    assert sum(not torch.equal(before[n], session.model.get_parameter(n)) for n in names) > len(names) / 2
    used = torch.cat(list(session.masks(task).values()))
    assert 0 < int(used.sum()) < used.numel()
    found = logits(session, task, subject.batch(seed=99)[0])
    assert torch.isfinite(found).all()
    assert (found - found[0])[1:].abs().amax() > 1e-4 * found.abs().max()
    return found


@pytest.mark.parametrize("optimizer", ["adamw", "sgd_kept"])
@pytest.mark.parametrize("name", SUBJECTS)
def test_the_first_task_keeps_its_logits(name: str, optimizer: str) -> None:
    subject = SUBJECTS[name]
    model, probe = subject.model(), subject.batch(seed=99)[0]
    session = fh.attach(model, subject.spec, probe[:1])
    birds = learnt(session, subject, "birds", optimizer, seed=10)
    cars = learnt(session, subject, "cars", optimizer, seed=20)
    assert torch.equal(logits(session, "birds", probe), birds)
    assert torch.equal(logits(session, "cars", probe), cars)
    assert not torch.equal(birds, cars)
    assert session.verify().leaks == {}


@pytest.mark.parametrize("name", SUBJECTS)
def test_without_rates_the_first_task_changes(name: str) -> None:
    subject = SUBJECTS[name]
    spec = {**subject.spec, "adjustment": {"mode": "hat_const_1"}}
    session = fh.attach(subject.model(), spec, subject.batch()[0][:1])
    birds = learnt(session, subject, "birds", "sgd_kept", seed=10)
    learnt(session, subject, "cars", "sgd_kept", seed=20)
    assert not torch.equal(logits(session, "birds", subject.batch(seed=99)[0]), birds)


def test_a_weight_that_is_computed_is_frozen() -> None:
    """The weight of the convolution over positions is made of two parameters: neither has a row a unit."""
    subject = SUBJECTS["wav2vec2"]
    plan = fh.plan(subject.model(), subject.spec, subject.batch()[0][:1])
    computed = [t for t in plan.tensors if "pos_conv_embed" in t.name]
    assert len(computed) == 3
    assert {t.protection for t in computed} == {"frozen"}
