"""Hard HAT forgets nothing, bit for bit, with any optimizer, on published architectures."""

from __future__ import annotations

import pytest

from tests.support.forgetting import History
from tests.support.learning import RECIPES, recipe
from tests.support.zoo_models import HEAVY, LIGHT, build

HARD = {"adjustment": {"mode": "hat"}}
CASES = [(m, o) for m in LIGHT for o in RECIPES] + [(m, o) for m in HEAVY for o in ("adamw", "sgd_kept")]
TASKS = ("birds", "cars", "boats")


@pytest.mark.parametrize(("model", "optimizer"), CASES)
def test_earlier_tasks_keep_their_logits(model: str, optimizer: str) -> None:
    history, how = History(build(model), HARD), recipe(optimizer)
    for task in TASKS:
        history.learn(task, how)
        assert history.changed() == []


@pytest.mark.parametrize("optimizer", ["sgd_kept", "adamw"])
def test_with_heads_of_other_sizes(optimizer: str) -> None:
    history, how = History(build("shufflenet_v2_x0_5"), HARD), recipe(optimizer)
    for task, classes in zip(TASKS, (3, 7, 2), strict=True):
        history.learn(task, how, classes=classes)
        assert history.changed() == []


@pytest.mark.parametrize("optimizer", ["sgd_kept", "adamw"])
def test_with_accumulated_gradients(optimizer: str) -> None:
    history, how = History(build("shufflenet_v2_x0_5"), HARD), recipe(optimizer)
    for task in TASKS:
        history.learn(task, how, accumulate=2)
        assert history.changed() == []
