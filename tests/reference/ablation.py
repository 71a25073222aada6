"""Feature ablation, one sample and one unit at a time, by a hook that overwrites the unit."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


def ablation(
    model: nn.Module, module: nn.Module, axis: int, units: list[int], data: tuple[Tensor, Tensor], raw: bool
) -> list[float]:
    """Return the mean over samples of `|F_y - F_y(z_i := 0)|` for some units of a module."""
    found = []
    for unit in units:
        total = 0.0
        for x, label in zip(data[0], data[1].tolist(), strict=True):
            plain, without = score(model, x, label), score_without(model, module, axis, unit, x, label, raw)
            total += abs(plain - without)
        found.append(total / len(data[0]))
    return found


def score(model: nn.Module, x: Tensor, label: int) -> float:
    """Return the label's logit."""
    with torch.no_grad():
        return float(model(x[None])[0, label])


def score_without(model: nn.Module, module: nn.Module, axis: int, unit: int, x: Tensor, label: int, raw: bool) -> float:
    """Return the label's logit with one unit set to 0 in all calls of the module."""

    def overwrite(_: nn.Module, __: Any, output: Any) -> Any:
        value = (output[0] if isinstance(output, tuple) else output).clone()
        value.select(axis, unit).fill_(0.0)
        return (value, *output[1:]) if isinstance(output, tuple) else value

    handle = module.register_forward_hook(overwrite, prepend=raw)
    try:
        return score(model, x, label)
    finally:
        handle.remove()
