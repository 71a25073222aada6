"""Which entries of which tensors later tasks may write, and which they may not."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from fgadahat_hooks.callbacks.rates import UnitVectors, prior_use
from fgadahat_hooks.gates.task_tensors import TaskTensors
from fgadahat_hooks.tasks.sequence import TaskSequence


def gated_entries(scratch: TaskSequence) -> Iterator[tuple[str, Tensor, Tensor]]:
    """Give name and data of each gated weight and bias, and a bool mask of what finished tasks use of it."""
    context = scratch.attached.context(None, scratch.state)
    joined = UnitVectors(context.cumulative, context.summative, torch.zeros_like(context.cumulative))
    for name, layer in context.layers.items():
        for part, shared in prior_use(context, layer, joined).items():
            gated = layer.module.get_parameter(part)
            yield f"{name}.{part}" if name else part, gated.data, (shared.protected != 0).expand(gated.shape)


def other_entries(scratch: TaskSequence) -> Iterator[tuple[str, Tensor, str]]:
    """Give name, data and protection of every floating-point tensor that is not gated."""
    tensors = TaskTensors(scratch.attached.model, [])
    for policy in scratch.attached.policies:
        tensor = tensors.tensor(policy.name)
        if policy.role != "gated" and tensor.is_floating_point():
            yield policy.name, tensor.data, policy.protection
