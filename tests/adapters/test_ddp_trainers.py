"""Two processes under trainers that wrap the model in DistributedDataParallel themselves."""

from __future__ import annotations

import pytest
import torch

from tests.adapters import ddp_trainers as worlds
from tests.adapters.test_ddp import differing
from tests.support.ranks import Ranks


def test_accelerate_forgets_no_bit_on_any_rank(ranks: Ranks) -> None:
    """Each task has a head of another size, so that each needs a wrapper of its own; batches are dealt out unevenly."""
    (first, changed_here, kind, gathered), (second, changed_there, _, _) = ranks(worlds.accelerate_tasks)
    assert kind == "DistributedDataParallel"
    assert (changed_here, changed_there) == ([], [])
    assert differing(first, second) == []
    assert gathered.shape == (7, 5)


@pytest.mark.parametrize("averaged", [True, False], ids=["tokens averaged", "tokens per device"])
def test_the_trainer_learns_what_a_loop_learns(ranks: Ranks, averaged: bool) -> None:
    """With tokens averaged the Trainer multiplies the loss by the number of processes; the term must not grow."""
    pytest.importorskip("transformers", "5.0", "the arguments used here came with transformers 5")
    for trained, by_hand in ranks(worlds.trainer_task, averaged):
        torch.testing.assert_close(trained, by_hand, rtol=1e-4, atol=1e-6)
