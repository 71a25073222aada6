"""Kept entries, in each of their forms, against a plain `where`."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from fgadahat_hooks.gates.kept_entries import KeptEntries

NAN = float("nan")


def mask(*shape: int, share: float = 0.4) -> Tensor:
    found = torch.rand(shape, generator=torch.Generator().manual_seed(1)) < share
    found.view(-1)[0], found.view(-1)[-1] = True, False
    return found


CASES = {
    "whole": ((3, 4), None),
    "all of a mask": ((3, 4), torch.ones(3, 1, dtype=torch.bool)),
    "bias": ((7,), mask(7)),
    "rows": ((6, 5), mask(6, 1)),
    "columns": ((6, 5), mask(1, 5)),
    "pairs": ((6, 5, 3, 3), mask(6, 5, 1, 1)),
    "inputs of a convolution": ((6, 5, 3, 3), mask(1, 5, 1, 1)),
    "single entries": ((6, 5), mask(6, 5, share=0.2)),
    "most single entries": ((6, 5), mask(6, 5, share=0.8)),
}


@pytest.mark.parametrize("layout", ["contiguous", "channels last", "transposed", "changed later"])
@pytest.mark.parametrize("case", CASES)
def test_kept_entries_are_written_back_and_others_stay(case: str, layout: str) -> None:
    shape, protected = CASES[case]
    tensor = torch.randn(shape)
    if layout == "channels last" and len(shape) == 4:
        tensor = tensor.contiguous(memory_format=torch.channels_last)
    elif layout == "transposed":
        tensor = torch.randn(shape[::-1]).permute(*range(len(shape) - 1, -1, -1))
    before = tensor.clone()
    where = (torch.ones(()).bool() if protected is None else protected).expand(shape)
    kept = KeptEntries(tensor, protected)
    assert kept.count == int(where.sum())
    assert int(kept.differing(tensor)) == 0
    if layout == "changed later" and len(shape) == 4:
        tensor = tensor.contiguous(memory_format=torch.channels_last)
    for value in (NAN, 3.0):
        tensor.copy_(torch.full(shape, value))
        assert int(kept.differing(tensor)) == kept.count
        kept.write_into(tensor)
        expected = torch.where(where, before, value)
        assert torch.equal(tensor.nan_to_num(9.0), expected.nan_to_num(9.0))
        assert int(kept.differing(tensor)) == 0


def test_bits_are_compared_and_rounding_is_told_from_a_change() -> None:
    tensor = torch.tensor([0.0, NAN, 1.0, 2.0])
    kept = KeptEntries(tensor, torch.tensor([True, True, True, False]))
    assert int(kept.differing(tensor)) == 0
    tensor[0] = -0.0
    assert int(kept.differing(tensor)) == 1
    assert kept.only_rounded(tensor)
    tensor[2] = torch.nextafter(tensor[2], torch.tensor(2.0))
    tensor[3] = 5.0
    assert int(kept.differing(tensor)) == 2
    assert kept.only_rounded(tensor)
    tensor[2] = 1.01
    assert not kept.only_rounded(tensor)


def test_memory_is_in_proportion_to_what_is_kept() -> None:
    weight = torch.randn(64, 64, 3, 3)
    few = KeptEntries(weight, mask(64, 64, 1, 1, share=0.04))
    assert few.nbytes < 1.3 * few.count * weight.element_size()
    most = KeptEntries(torch.randn(64, 64), mask(64, 64, share=0.9))
    assert most.nbytes < 1.4 * 64 * 64 * 4
