"""Two processes under DistributedDataParallel: nothing forgotten, equal results on all ranks, no rank left waiting."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.distributed.fsdp
from torch import Tensor

import fgadahat_hooks as fh
from tests.adapters import ddp_worlds as worlds
from tests.support.ranks import Ranks

HARD: dict[str, Any] = {"adjustment": {"mode": "hat"}}
PRESET: dict[str, Any] = fh.preset("hat", tasks=4).model_dump()


def differing(one: dict[str, Tensor], other: dict[str, Tensor]) -> list[str]:
    assert one.keys() == other.keys()
    return [name for name, value in one.items() if not torch.equal(value, other[name])]


@pytest.mark.parametrize("spec", [HARD, PRESET], ids=["hat", "preset"])
def test_hard_hat_forgets_no_bit_on_any_rank(ranks: Ranks, spec: dict[str, Any]) -> None:
    (first, changed_here), (_, changed_there) = ranks(worlds.three_tasks, spec)
    assert (changed_here, changed_there) == ([], [])
    masks = torch.cat([value for name, value in first.items() if name.startswith("mask")])
    assert 0 < int(masks.sum()) < masks.numel()


@pytest.mark.parametrize("spec", [HARD, worlds.SCALED, PRESET], ids=["hat", "fg_adahat", "preset"])
def test_all_ranks_keep_the_same_bits(ranks: Ranks, spec: dict[str, Any]) -> None:
    """Masks, importance, heads, running statistics and weights: ranks see other data and draw other numbers."""
    (first, _), (second, _) = ranks(worlds.three_tasks, spec)
    assert differing(first, second) == []
    assert any("running_mean" in name and name.startswith("own") for name in first)
    assert any(name.startswith("importance") for name in first) == (spec is worlds.SCALED)


def test_two_ranks_learn_what_one_process_learns_of_the_same_batches(ranks: Ranks) -> None:
    alone = worlds.global_batch(0, False)
    for together in ranks(worlds.global_batch, True):
        torch.testing.assert_close(together, alone, rtol=1e-10, atol=1e-12)


def test_a_task_begins_with_the_same_numbers_on_all_ranks(ranks: Ranks) -> None:
    first, second = ranks(worlds.begun)
    assert differing(first, second) == []
    assert {"6.weight", "6.bias", "0.hat_gate.embedding"} <= set(first)


def test_a_certificate_is_the_same_on_all_ranks(ranks: Ranks) -> None:
    (first, audit), other = ranks(worlds.certified)
    assert (first, audit) == other
    assert audit == (("task 0",), ("task 1",), 1)


def test_random_rates_are_the_same_on_all_ranks(ranks: Ranks) -> None:
    first, second = ranks(worlds.rates)
    assert differing(first, second) == []


DRIFT = {
    "not wrapped": ("RanksDifferError: Expected the same gradients on all 2 ranks", "'0.weight'"),
    "wrapped too early": ("RanksDifferError: Expected the same gradients on all 2 ranks", "and inside the task"),
    "drifted": ("RanksDifferError: Expected the same parameters at the end of a task on all 2 ranks", "'4.weight'"),
    "poisoned": ("NonFiniteError: Measure 'poisoned' gave NaN or infinity", "'0'"),
}


@pytest.mark.parametrize("how", DRIFT)
def test_every_rank_raises_and_none_waits(ranks: Ranks, how: str) -> None:
    begin, name = DRIFT[how]
    for error, finished, alive in ranks(worlds.failing_training, how):
        assert error.startswith(begin)
        assert name in error
        assert finished == []
        assert alive == 2


def test_a_step_costs_one_collective(ranks: Ranks) -> None:
    """Beside that: what the task begins with and its buffers at the end, gradients once and parameters once."""
    for counts in ranks(worlds.collectives):
        assert counts == {"all_reduce": worlds.STEPS, "broadcast": 2, "all_gather": 2}


def test_without_a_group_nothing_is_asked_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("all_reduce", "all_gather", "broadcast"):
        monkeypatch.delattr(dist, name)
    worlds.global_batch(0, False)


def test_sharded_parameters_are_refused(ranks: Ranks) -> None:
    if not hasattr(torch.distributed.fsdp, "fully_shard"):
        pytest.skip("fully_shard is newer than this torch")
    for messages in ranks(worlds.sharded):
        assert len(messages) == 3
        assert all("FSDP2 (`fully_shard`) and tensor parallelism are not supported" in message for message in messages)
