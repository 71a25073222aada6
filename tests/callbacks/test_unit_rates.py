"""Rates computed per unit and carried over to weights equal, bit for bit, the rates computed per weight."""

from __future__ import annotations

import pytest
import torch

import fgadahat_hooks as fh
from fgadahat_hooks.callbacks import gradient_adjust
from fgadahat_hooks.callbacks.rates import has_unit_rates
from fgadahat_hooks.spec.attach_spec import to_adjustment
from tests.support.learning import learn, recipe
from tests.support.small_models import Net, batch

FG = {"mode": "fg_adahat", "intensity": 0.01}
BY_UNIT = [
    {"mode": "adahat", "intensity": 0.1},
    {"mode": "adahat_no_sum", "intensity": 0.1},
    *(
        {**FG, "scheduler": s, "aggregation": a}
        for s in ("linear_sparsity_reg", "sparsity_reg")
        for a in ("min", "max")
    ),
]
BY_WEIGHT = [
    {**FG, "aggregation": "mean"},
    {**FG, "scheduler": "summative_mask_sparsity_reg"},
    {**FG, "filter_by_cumulative_mask": True},
]


def trained_session() -> fh.Session:
    session = fh.attach(Net(), {"adjustment": FG}, batch(1)[0])
    for task in "ab":
        learn(session, task, [batch(seed=ord(task))] * 2, recipe("adamw"))
    return session


@pytest.mark.parametrize("spec", BY_UNIT, ids=str)
def test_both_give_the_same_bits(spec: dict[str, object], monkeypatch: pytest.MonkeyPatch) -> None:
    assert has_unit_rates(to_adjustment(spec))
    session = trained_session()
    with session.task("c") as task:
        task.anneal(2, 3)
        context = task.context()
        by_unit = fh.GradientAdjustCallback(spec).rates(context)
        monkeypatch.setattr(gradient_adjust, "has_unit_rates", lambda _: False)
        by_weight = fh.GradientAdjustCallback(spec).rates(context)
    assert by_unit.keys() == by_weight.keys()
    assert all(torch.equal(by_unit[name], by_weight[name]) for name in by_unit)
    assert any((rate < 1).any() for rate in by_unit.values())


@pytest.mark.parametrize("spec", BY_WEIGHT, ids=str)
def test_rates_of_more_than_one_value_are_computed_per_weight(spec: dict[str, object]) -> None:
    assert not has_unit_rates(to_adjustment(spec))
