"""The sparsity terms against the loops and the recorded numbers."""

from __future__ import annotations

import pytest
import torch

from fgadahat_hooks import functional as F
from tests.reference import sparsity as reference
from tests.reference.recorded import LAYERS, SETS, recorded


@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize("mode", ["original", "cross"])
def test_regularization_equals_loops_and_record(name: str, mode: str) -> None:
    data = recorded(name)
    masks, cumulative = data.layers("t2/mask"), data.layers("t1_end/cumulative_mask")
    ours = F.regularization(masks, cumulative, mode)
    expected = reference.regularization([m.tolist() for m in masks], [c.tolist() for c in cumulative], mode)
    assert ours.item() == pytest.approx(expected, rel=1e-14)
    factor = data.settings["mask_sparsity_reg_factor"]
    record = data.tensor("t2/reg").item() if mode == "original" else data.settings["cross_reg_single_factor"]
    assert factor * ours.item() == pytest.approx(record, rel=1e-13)


@pytest.mark.parametrize("name", SETS)
def test_layer_sparsity_equals_loops_and_record(name: str) -> None:
    """The record has 0 for layers with at most 10 free units; the exact ratio has no such bound."""
    data = recorded(name)
    for i in LAYERS:
        mask, cumulative = data.tensor(f"t2/mask{i}"), data.tensor(f"t1_end/cumulative_mask{i}")
        ours = F.layer_sparsity(mask, cumulative).item()
        assert ours == pytest.approx(reference.layer_sparsity(mask.tolist(), cumulative.tolist()), rel=1e-14)
        if (cumulative == 0).sum() > 10:
            assert ours == pytest.approx(data.tensor(f"t2/network_sparsity{i}").item(), rel=1e-14)
        else:
            assert data.tensor(f"t2/network_sparsity{i}").item() == 0
            assert ours > 0


@pytest.mark.parametrize("mode", ["original", "cross"])
@pytest.mark.parametrize("seed", range(5))
def test_random_masks_equal_loops(mode: str, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    sizes = torch.randint(1, 9, (4,), generator=generator).tolist()
    masks = [torch.rand(n, generator=generator, dtype=torch.float64) for n in sizes]
    cumulative = [torch.randint(0, 2, (n,), generator=generator, dtype=torch.float64) for n in sizes]
    expected = reference.regularization([m.tolist() for m in masks], [c.tolist() for c in cumulative], mode)
    assert F.regularization(masks, cumulative, mode).item() == pytest.approx(expected, rel=1e-14)
