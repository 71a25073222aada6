"""Which entries of gated weights and biases finished tasks use."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from fgadahat_hooks.callbacks.prior_use import UnitVectors, prior_use
from fgadahat_hooks.gates.context import TaskContext


def protected_entries(context: TaskContext) -> Iterator[tuple[str, nn.Parameter, Tensor]]:
    """Yield name and parameter of each gated weight and bias, and which entries finished tasks use.

    The mask is bool and broadcasts to the parameter: `min(m^{<t}_{l,i}, m^{<t}_{l-1,j})` (HAT Eq. 2).
    """
    vectors = UnitVectors(context.cumulative, context.summative, torch.zeros_like(context.cumulative))
    for name, layer in context.layers.items():
        for local_name, prior in prior_use(context, layer, vectors).items():
            qualified_name = f"{name}.{local_name}" if name else local_name
            yield qualified_name, layer.module.get_parameter(local_name), prior.protected != 0
