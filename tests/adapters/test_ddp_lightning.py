"""Two processes under Lightning's DDP strategy."""

from __future__ import annotations

import pytest

from tests.adapters import ddp_lightning as worlds
from tests.adapters.test_ddp import differing
from tests.support.ranks import Ranks


@pytest.mark.parametrize("hard", [True, False], ids=["hat", "fg_adahat"])
def test_lightning_ends_every_task_with_the_same_bits_on_all_ranks(ranks: Ranks, hard: bool) -> None:
    (first, changed_here, kind), (second, changed_there, _) = ranks(worlds.lightning_tasks, hard)
    assert kind == "DDPStrategy"
    assert differing(first, second) == []
    if hard:
        assert (changed_here, changed_there) == ([], [])
