"""Every summing strategy against the closed forms and the recorded numbers."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from fgadahat_hooks.functional import STRATEGIES
from tests.reference import summation as reference
from tests.reference.recorded import SETS, recorded

PARAMS = {
    "linear_decrease": {"linear_step": 0.5},
    "exponential_decrease": {"exponential_rate": 2.0},
    "log_decrease": {"log_base": 2.0},
}


def run(strategy: str, importances: list[Tensor]) -> list[Tensor]:
    """Return the sums after each task."""
    sums: list[Tensor] = []
    for task in range(1, len(importances) + 1):
        previous = sums[-1] if sums else None
        sums.append(STRATEGIES[strategy](previous, importances[:task], **PARAMS.get(strategy, {})))
    return sums


@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize("strategy", sorted(STRATEGIES))
def test_strategy_equals_record(name: str, strategy: str) -> None:
    data = recorded(name)
    importances = [data.tensor(f"strategy/importance_task{task}") for task in (1, 2, 3)]
    for task, total in enumerate(run(strategy, importances), start=1):
        torch.testing.assert_close(total, data.tensor(f"strategy/{strategy}/after{task}"), rtol=1e-13, atol=0)


@pytest.mark.parametrize("strategy", sorted(STRATEGIES))
def test_strategy_equals_closed_form(strategy: str) -> None:
    generator = torch.Generator().manual_seed(0)
    importances = list(torch.rand(12, 7, generator=generator, dtype=torch.float64))
    for task, total in enumerate(run(strategy, importances), start=1):
        expected = reference.summed(strategy, [x.tolist() for x in importances[:task]])
        torch.testing.assert_close(total, torch.tensor(expected, dtype=torch.float64), rtol=1e-13, atol=0)
