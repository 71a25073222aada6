"""Two maps of one layer's inputs, united: against the plain "one or the other" under every mask."""

from __future__ import annotations

from itertools import product

import pytest
import torch
from torch import Tensor

from fgadahat_hooks.graph.tracing.extend import either, same
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
def test_what_either_map_lets_through_the_union_does(seed: int, groups: bool) -> None:
    a, b = random_map(2 * seed, groups=groups), random_map(2 * seed + 1, groups=groups)
    united, other = either(a, b), either(b, a)
    for bits in product((0.0, 1.0), repeat=UNITS):
        mask = torch.tensor(bits)
        expected = nonzero(a, mask) | nonzero(b, mask)
        assert torch.equal(nonzero(united, mask), expected)
        assert torch.equal(nonzero(other, mask), expected)


@pytest.mark.parametrize("seed", range(4))
def test_a_map_united_with_itself_is_itself(seed: int) -> None:
    one = random_map(seed, groups=True)
    assert either(one, random_map(seed, groups=True)) is one
    assert same(one, random_map(seed, groups=True))
    assert not same(one, random_map(seed + 50, groups=True))


def test_many_ways_do_not_make_a_map_grow_without_end() -> None:
    """Each way brings two more sets of other units: all pairs of all of them would be two to the power of twelve."""
    maps = [
        InputMap(1, torch.tensor([False]), torch.zeros(2, dtype=torch.long), torch.tensor([2 * k, 2 * k + 1]), pair)
        for k, pair in enumerate([torch.tensor([0, 1])] * 12)
    ]
    found = maps[0]
    for one in maps[1:]:
        found = either(found, one)
    assert found.group is not None
    assert int(found.group.max()) < 4
    for seed in range(200):
        mask = (torch.rand(24, generator=torch.Generator().manual_seed(seed)) < 0.1).float()
        assert bool(nonzero(found, mask)) >= any(bool(nonzero(one, mask)) for one in maps)
