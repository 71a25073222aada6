"""Enters the equations' tables into the registry, so that a user sees and extends all named things in one place."""

from __future__ import annotations

from fgadahat_hooks import registry
from fgadahat_hooks.functional.adjust import SCHEDULERS
from fgadahat_hooks.functional.aggregate import AGGREGATIONS
from fgadahat_hooks.functional.summation import STRATEGIES

for _name, _strategy in STRATEGIES.items():
    registry.strategies.register(_name)(_strategy)
for _name, _scheduler in SCHEDULERS.items():
    registry.schedulers.register(_name)(_scheduler)
for _name, _aggregation in AGGREGATIONS.items():
    registry.aggregations.register(_name)(_aggregation)
