"""Registers the tables of `functional`, so that users find all named choices in `registry`."""

from __future__ import annotations

from fgadahat_hooks import registry
from fgadahat_hooks.functional.adjust import SCHEDULERS
from fgadahat_hooks.functional.aggregate import AGGREGATIONS
from fgadahat_hooks.functional.summation import STRATEGIES


def fill_registry() -> None:
    """Register every strategy, scheduler and aggregation under its name; existing entries are kept."""
    for name, strategy in STRATEGIES.items():
        if name not in registry.strategies:
            registry.strategies.register(name)(strategy)
    for name, scheduler in SCHEDULERS.items():
        if name not in registry.schedulers:
            registry.schedulers.register(name)(scheduler)
    for name, aggregation in AGGREGATIONS.items():
        if name not in registry.aggregations:
            registry.aggregations.register(name)(aggregation)
