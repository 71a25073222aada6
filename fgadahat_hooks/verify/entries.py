"""Which entries of which tensors later tasks may write, and which they may not."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from fgadahat_hooks.callbacks.prior_use import UnitVectors, prior_use
from fgadahat_hooks.gates.task_tensors import TaskTensors
from fgadahat_hooks.tasks.sequence import TaskSequence


def gated_entries(scratch: TaskSequence) -> Iterator[tuple[str, Tensor, Tensor]]:
    """Yield name and data of each gated weight and bias, and a bool mask of the elements that finished tasks use."""
    context = scratch.attached.context(None, scratch.state)
    vectors = UnitVectors(context.cumulative, context.summative, torch.zeros_like(context.cumulative))
    for name, layer in context.layers.items():
        for local_name, prior in prior_use(context, layer, vectors).items():
            gated = layer.module.get_parameter(local_name)
            qualified_name = f"{name}.{local_name}" if name else local_name
            yield qualified_name, gated.data, (prior.protected != 0).expand(gated.shape)


def other_entries(scratch: TaskSequence) -> Iterator[tuple[str, Tensor, str]]:
    """Yield name, data and protection of every floating-point tensor that is not gated."""
    tensors = TaskTensors(scratch.attached.model, [])
    for policy in scratch.attached.policies:
        tensor = tensors.tensor(policy.name)
        if policy.role != "gated" and tensor.is_floating_point():
            yield policy.name, tensor.data, policy.protection
