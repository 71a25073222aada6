"""Which entries of which tensors later tasks may write, and which they may not."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor

from fgadahat_hooks.callbacks.protected_entries import protected_entries
from fgadahat_hooks.gates.task_tensors import TaskTensors
from fgadahat_hooks.tasks.sequence import TaskSequence


def gated_entries(scratch: TaskSequence) -> Iterator[tuple[str, Tensor, Tensor]]:
    """Yield name and data of each gated weight and bias, and a bool mask of the elements that finished tasks use."""
    for name, gated, protected in protected_entries(scratch.attached.context(None, scratch.state)):
        yield name, gated.data, protected.expand(gated.shape)


def other_entries(scratch: TaskSequence) -> Iterator[tuple[str, Tensor, str]]:
    """Yield name, data and protection of every floating-point tensor that is not gated."""
    tensors = TaskTensors(scratch.attached.model, [])
    for policy in scratch.attached.policies:
        tensor = tensors.tensor(policy.name)
        if policy.role != "gated" and tensor.is_floating_point():
            yield policy.name, tensor.data, policy.protection
