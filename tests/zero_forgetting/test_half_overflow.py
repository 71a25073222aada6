"""In half precision a later task's units overflow; finished tasks, to which they are closed, see nothing of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import fgadahat_hooks as fh
from tests.support.small import learn

X = torch.rand(8, 3, 6, 6) + 1
LARGE = 6e4
"""A weight with which a few inputs above 1 overflow float16."""


def plain() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(128, 16), nn.ReLU(), nn.Linear(16, 3))


def normed() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(),
        nn.Conv2d(8, 8, 3), nn.BatchNorm2d(8, affine=False), nn.ReLU(),
        nn.Flatten(), nn.Linear(32, 3),
    )  # fmt: skip


def attention() -> nn.Module:
    layer = nn.TransformerEncoderLayer(36, 2, 24, dropout=0.0, batch_first=True)
    return nn.Sequential(nn.Flatten(2), layer, nn.Flatten(), nn.Linear(108, 3))


class Residual(nn.Module):
    """Two layers are added and normed: the sum's channels are gated once more."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.norm = nn.Linear(108, 16), nn.Linear(16, 16), nn.BatchNorm1d(16)
        self.last, self.head = nn.LayerNorm(16), nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = self.a(x.flatten(1))
        out: Tensor = self.head(self.last(h + self.b(self.norm(h).relu())))
        return out


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize(
    ("make", "gates"),
    [(plain, {}), (plain, {"gains": "without_norms"}), (normed, {}), (attention, {}), (Residual, {})],
)
def test_infinity_behind_a_closed_gate_stays_there(
    make: Callable[[], nn.Module], gates: dict[str, Any], dtype: torch.dtype
) -> None:
    torch.manual_seed(0)
    session = fh.attach(make(), {"gates": {"choose": "share", "tasks": 3, **gates}}, X[:2])
    learn(session, "a", [(X, torch.arange(8) % 3)] * 2)
    before = served(session, dtype)
    with torch.no_grad():
        for name, mask in session.masks("a").items():
            weight = session.model.get_parameter(f"{name}.weight")
            weight.view(-1, *weight.shape[1:])[~mask] = LARGE if dtype == torch.float16 else 3e38
    after = served(session, dtype)
    assert after.isfinite().all()
    assert torch.equal(before, after)


def served(session: fh.Session, dtype: torch.dtype) -> Tensor:
    session.model.eval()
    with torch.no_grad(), session.use("a"), torch.autocast("cpu", dtype):
        out: Tensor = session.model(X)
        return out.clone()
