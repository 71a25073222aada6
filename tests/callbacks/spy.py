"""A measure that records the views it is given."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

import fgadahat_hooks as fh
from fgadahat_hooks.importance import LayerView


class Spy(fh.Measure):
    """Keeps every view and returns the indices of the units, times `value`."""

    needs: ClassVar[frozenset[str]] = frozenset({"weight", "gradient", "activation", "consumers"})
    views: ClassVar[list[LayerView]] = []
    value: ClassVar[float] = 1.0

    def compute(self, view: LayerView) -> Tensor:
        Spy.views.append(view)
        return torch.arange(view.units, dtype=torch.float64) * Spy.value


def attach(model: nn.Module, **block: Any) -> tuple[fh.Session, fh.ImportanceCallback]:
    example = torch.randn(2, 4, dtype=torch.float64)
    importance = fh.ImportanceCallback(block)
    return fh.attach(model, {}, example, [importance]), importance


def soft_masks(session: fh.Session) -> Tensor:
    gate = session.model.get_submodule("0.hat_gate")
    mask: Tensor = gate.soft_mask()  # type: ignore[operator]
    return mask.detach()
