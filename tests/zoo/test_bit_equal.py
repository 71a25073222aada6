"""Every architecture with every optimizer; and, without protection, none of them keeps its logits."""

from __future__ import annotations

import pytest

from tests.support.forgetting import History
from tests.support.learning import RECIPES, recipe
from tests.support.zoo_models import BUILDERS, build

pytestmark = pytest.mark.zoo


@pytest.mark.parametrize("optimizer", RECIPES)
@pytest.mark.parametrize("model", BUILDERS)
def test_earlier_tasks_keep_their_logits(model: str, optimizer: str) -> None:
    history, how = History(build(model), {"adjustment": {"mode": "hat"}}), recipe(optimizer)
    for task in ("birds", "cars", "boats"):
        history.learn(task, how)
        assert history.changed() == []


@pytest.mark.parametrize("model", BUILDERS)
def test_without_rates_both_earlier_tasks_change(model: str) -> None:
    history, how = History(build(model), {"adjustment": {"mode": "hat_const_1"}}), recipe("sgd")
    for task in ("birds", "cars", "boats"):
        history.learn(task, how)
    assert history.changed() == ["birds", "cars"]
