"""The tables of `functional` are registered completely, and once."""

from __future__ import annotations

from typing import get_args

import pytest

from fgadahat_hooks import registry
from fgadahat_hooks.functional import AGGREGATIONS, SCHEDULERS, STRATEGIES
from fgadahat_hooks.registry import Registry
from fgadahat_hooks.spec.attach_spec import ExponentialDecrease, FGAdaHAT, LinearDecrease, LogDecrease, PlainSummation
from fgadahat_hooks.spec.choices import fill_registry


def test_every_choice_is_registered_under_its_name() -> None:
    assert {name: registry.strategies.get(name) for name in STRATEGIES} == STRATEGIES
    assert {name: registry.schedulers.get(name) for name in SCHEDULERS} == SCHEDULERS
    assert {name: registry.aggregations.get(name) for name in AGGREGATIONS} == AGGREGATIONS


def test_the_spec_offers_all_of_the_tables() -> None:
    blocks = (PlainSummation, LinearDecrease, ExponentialDecrease, LogDecrease)
    strategies = {s for block in blocks for s in get_args(block.model_fields["strategy"].annotation)}
    assert strategies == set(STRATEGIES)
    assert set(get_args(FGAdaHAT.model_fields["scheduler"].annotation)) == set(SCHEDULERS)
    assert set(get_args(FGAdaHAT.model_fields["aggregation"].annotation)) == set(AGGREGATIONS)


def test_filling_again_keeps_existing_entries(monkeypatch: pytest.MonkeyPatch) -> None:
    mine: Registry[object] = Registry("strategy")
    mine.register("add_all")(own := object())
    monkeypatch.setattr(registry, "strategies", mine)
    fill_registry()
    fill_registry()
    assert mine.get("add_all") is own
    assert set(mine.names()) == set(STRATEGIES)
