"""The collectives, on two ranks and in a single process."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from fgadahat_hooks.distributed.ranks import broadcast_from_first, check_equal, is_distributed, mean_over_ranks
from fgadahat_hooks.errors import RanksDifferError
from tests.support.ranks import RankError, Ranks

VALUES = torch.tensor([[0.1, 1 / 3, 5e-40], [0.7, 1 / 3, 5e-40]])
SAMPLES = (3.0, 5.0)


def mean(rank: int) -> Tensor:
    return mean_over_ranks(VALUES[rank], SAMPLES[rank])


def mean_by_data(rank: int) -> Tensor:
    return mean_over_ranks(VALUES[rank], 0, {"labels": torch.zeros(int(SAMPLES[rank])), "name": "x"})


def mean_without_data(rank: int) -> Tensor:
    return mean_over_ranks(VALUES[rank], 0, None)


@pytest.mark.parametrize("how", [mean, mean_by_data])
def test_the_mean_is_weighted_by_samples(ranks: Ranks, how: object) -> None:
    first, second = ranks(how)  # type: ignore[arg-type]
    weights = torch.tensor(SAMPLES, dtype=torch.float64)
    expected = (VALUES.double() * weights[:, None]).sum(0) / weights.sum()
    assert torch.equal(first, second)
    torch.testing.assert_close(first, expected.float())
    assert torch.equal(first[1:], VALUES[0, 1:])  # values that are the same on all ranks keep their bits


def test_ranks_with_unknown_samples_have_equal_weights(ranks: Ranks) -> None:
    torch.testing.assert_close(ranks(mean_without_data)[0], VALUES.mean(0))


def broadcasted(rank: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(rank)
    tensors = [
        torch.randn(3, 4, generator=generator).T,
        torch.randn(5, generator=generator, dtype=torch.float64)[::2],
        torch.randn(2, 2, generator=generator).bfloat16(),
        torch.tensor(rank),
        torch.tensor([rank == 0, rank == 1]),
        torch.empty(0),
        torch.nn.Parameter(torch.randn(2, generator=generator)),
    ]
    broadcast_from_first(tensors)
    return [t.detach().clone() for t in tensors]


def test_the_first_ranks_values_reach_all(ranks: Ranks) -> None:
    first, second = ranks(broadcasted)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert torch.equal(first[0], torch.randn(3, 4, generator=torch.Generator().manual_seed(0)).T)
    assert (int(second[3]), second[4].tolist()) == (0, [True, False])


def compared(rank: int) -> str:
    nan = torch.full((2,), float("nan"))
    sparse = torch.sparse_coo_tensor(
        torch.tensor([[0, 2]]), torch.tensor([1.0, 2.0 + rank]), (3,), check_invariants=True
    )
    values = {
        "same": torch.arange(4.0),
        "nan": nan,
        "none": None,
        "last bit": torch.tensor([1.0, 1.0 + 2**-23 * rank]),
        "flag": torch.tensor([True, rank == 0]),
        "half": torch.tensor([rank], dtype=torch.float16),
        "complex": torch.tensor([1j * rank]),
        "sparse": sparse,
        "only here": torch.zeros(1) if rank else None,
    }
    try:
        check_equal(values, "things", "Do this.")
    except RanksDifferError as error:
        return str(error)
    return ""


def test_tensors_that_differ_in_a_bit_are_named_on_all_ranks(ranks: Ranks) -> None:
    first, second = ranks(compared)
    assert first == second
    assert first == (
        "Expected the same things on all 2 ranks, but 6 of 9 differ: 'last bit', 'flag', 'half', 'complex', 'sparse' "
        "and others. Do this."
    )


def test_a_single_process_does_nothing() -> None:
    assert not is_distributed()
    values = torch.ones(3)
    assert mean_over_ranks(values, 4) is values
    broadcast_from_first([values])
    check_equal({"a": values}, "things", "")


# ------------------------------------------------------------------ the processes of these tests
def breaking(rank: int) -> None:
    if rank == 1:
        raise ZeroDivisionError("on purpose")


def test_an_error_on_a_rank_reaches_the_test(ranks: Ranks) -> None:
    with pytest.raises(RankError, match=r"rank 1: (.|\n)*on purpose"):
        ranks(breaking)
