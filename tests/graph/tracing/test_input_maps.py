"""The merge of two maps of one layer's inputs, against a plain "one or the other" under every mask."""

from __future__ import annotations

from itertools import product

import pytest
import torch
from torch import Tensor

from fgadahat_hooks.graph.tracing.input_maps import equal_input_maps, merge_input_maps
from fgadahat_hooks.graph.unit_graph import InputMap

UNITS, FEATURES = 4, 6


def random_map(seed: int, *, groups: bool) -> InputMap:
    """Draw a map in which features are live, always zero, of one set of units, or of several."""
    generator = torch.Generator().manual_seed(seed)

    def draw(end: int) -> int:
        return int(torch.randint(end, (), generator=generator))

    live = [draw(4) == 0 for _ in range(FEATURES)]
    triples = []
    for feature in (f for f in range(FEATURES) if not live[f]):
        for group in range(draw(3) if groups else draw(2)):
            units = sorted({draw(UNITS) for _ in range(1 + draw(2))})
            triples += [(feature, unit, group) for unit in units]
    features, units_of, group_of = torch.tensor(triples, dtype=torch.long).view(-1, 3).unbind(1)
    return InputMap(FEATURES, torch.tensor(live), features, units_of, group_of if bool(group_of.any()) else None)


def nonzero(inputs: InputMap, mask: Tensor) -> Tensor:
    return inputs.gather_max(mask, 1.0) > 0


@pytest.mark.parametrize("groups", [False, True])
@pytest.mark.parametrize("seed", range(12))
def test_the_merged_map_lets_through_what_either_map_does(seed: int, groups: bool) -> None:
    a, b = random_map(2 * seed, groups=groups), random_map(2 * seed + 1, groups=groups)
    merged, other = merge_input_maps(a, b), merge_input_maps(b, a)
    for bits in product((0.0, 1.0), repeat=UNITS):
        mask = torch.tensor(bits)
        expected = nonzero(a, mask) | nonzero(b, mask)
        assert torch.equal(nonzero(merged, mask), expected)
        assert torch.equal(nonzero(other, mask), expected)


@pytest.mark.parametrize("seed", range(4))
def test_a_map_merged_with_itself_is_itself(seed: int) -> None:
    one = random_map(seed, groups=True)
    assert merge_input_maps(one, random_map(seed, groups=True)) is one
    assert equal_input_maps(one, random_map(seed, groups=True))
    assert not equal_input_maps(one, random_map(seed + 50, groups=True))


def test_many_execution_paths_do_not_make_a_map_grow_without_end() -> None:
    """Each path has two sets of new units: pairing all of them would give two to the power of twelve sets."""
    maps = [
        InputMap(1, torch.tensor([False]), torch.zeros(2, dtype=torch.long), torch.tensor([2 * k, 2 * k + 1]), pair)
        for k, pair in enumerate([torch.tensor([0, 1])] * 12)
    ]
    found = maps[0]
    for one in maps[1:]:
        found = merge_input_maps(found, one)
    assert found.group is not None
    assert int(found.group.max()) < 4
    for seed in range(200):
        mask = (torch.rand(24, generator=torch.Generator().manual_seed(seed)) < 0.1).float()
        assert bool(nonzero(found, mask)) >= any(bool(nonzero(one, mask)) for one in maps)
