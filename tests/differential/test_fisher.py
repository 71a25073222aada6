"""The Fisher information by single samples against one backward a sample, in double precision."""

from __future__ import annotations

import pytest
import torch

from tests.reference.fisher import fisher
from tests.support.attribution import MODELS, gated


@pytest.mark.parametrize("name", sorted(MODELS))
def test_second_implementation(name: str) -> None:
    with gated(name) as world:
        found = world.session.measure("input_weight_fisher_sum", world.x, world.y)
        few = list(found) if name == "kinds" else list(found)[:: max(1, len(found) // 4)]
        for layer in few:
            module = world.model.get_submodule(layer)
            with world.still():
                loops = fisher(world.model, module.get_parameter("weight"), world.x, world.y, module)
            expected = torch.tensor(loops, dtype=torch.float64)
            torch.testing.assert_close(found[layer], expected, rtol=1e-10, atol=1e-14 * float(expected.max()))
