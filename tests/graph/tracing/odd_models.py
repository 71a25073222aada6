"""Small models, each with one thing that tracing must get right; all of them are in `MODELS`.

Every model takes a tensor of the shape in the table and ends in a layer named `head`.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tests.graph.tracing import odd_features, odd_flow, odd_norms, odd_tensors, odd_weights
from tests.graph.tracing.odd_base import IMAGE, MODELS, VECTOR, Image, Vector
from tests.graph.tracing.odd_weights import KeepingLinear

__all__ = ["FILES", "IMAGE", "MODELS", "STATEFUL", "VECTOR", "Image", "KeepingLinear", "Vector", "build"]

FILES = (odd_features, odd_flow, odd_norms, odd_tensors, odd_weights)
"""Importing them fills the table."""
STATEFUL = ("Cache", "CacheInClosure", "BufferState", "ZeroFactor", "WritesItsInput")
"""Those that give another output when called again."""


def build(name: str) -> tuple[nn.Module, Tensor]:
    """Return a model of the table, and an input."""
    torch.manual_seed(0)
    cls, shape = MODELS[name]
    return cls().eval(), torch.randn(shape)
