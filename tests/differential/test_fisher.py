"""Fisher information from per-sample gradients against one backward a sample, in double precision."""

from __future__ import annotations

import pytest
import torch

from tests.reference.fisher import fisher
from tests.support.attribution import MODELS, gated


@pytest.mark.parametrize("name", sorted(MODELS))
def test_second_implementation(name: str) -> None:
    with gated(name) as attached:
        found = attached.session.measure("input_weight_fisher_sum", attached.x, attached.y)
        few = list(found) if name == "kinds" else list(found)[:: max(1, len(found) // 4)]
        for layer in few:
            module = attached.model.get_submodule(layer)
            with attached.in_evaluation():
                loops = fisher(attached.model, module.get_parameter("weight"), attached.x, attached.y, module)
            expected = torch.tensor(loops, dtype=torch.float64)
            torch.testing.assert_close(found[layer], expected, rtol=1e-10, atol=1e-14 * float(expected.max()))
