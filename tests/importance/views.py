"""Small views whose measures can be computed by hand."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from fgadahat_hooks.importance import ConsumerView, LayerView
from fgadahat_hooks.layers import LinearType


def consumer(weight: list[list[float]], pairs: list[tuple[int, int]], **changes: Any) -> ConsumerView:
    """Return a linear consumer; its gradient is ten times its weight."""
    w = torch.tensor(weight)
    unit, feature = torch.tensor(pairs).T
    parts = {"weight": w, "weight_grad": 10 * w, "unit": unit, "feature": feature, **changes}
    return ConsumerView(name="head", module=nn.Linear(w.shape[1], w.shape[0]), kind=LinearType(), **parts)


def view(**changes: Any) -> LayerView:
    """Return a linear layer of two units, read by two consumers, the second of which has two features a unit."""
    weight = torch.tensor([[1.0, -2.0, 0.0], [0.0, 0.5, 0.5]])
    consumers = (
        consumer([[1.0, -1.0], [3.0, 0.0]], [(0, 0), (1, 1)]),
        consumer([[100.0, 0.0, 0.0, -200.0]], [(1, 0), (1, 1), (0, 2), (0, 3)]),
    )
    parts = {
        "weight": weight,
        "weight_grad": -weight,
        "activation": torch.tensor([2.0, 4.0]),
        "consumers": consumers,
        **changes,
    }
    return LayerView(name="fc1", module=nn.Linear(3, 2), kind=LinearType(), units=2, **parts)
