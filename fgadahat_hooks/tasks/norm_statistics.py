"""Running statistics under the mask that is served: measured anew when a task ends.

During training, running statistics lag behind the weights, and while masks are soft they are those of soft masks.
Evaluation uses the weights and the hard mask that the task ends with, so the statistics must be those of both.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from fgadahat_hooks.distributed.ranks import mean_over_ranks
from fgadahat_hooks.gates.attached_model import AttachedModel
from fgadahat_hooks.tasks.random_states import random_state, set_random_state
from fgadahat_hooks.tasks.recent_inputs import RecentInputs
from fgadahat_hooks.tasks.sequence import TaskSequence


def norms_to_measure(attached: AttachedModel, first: bool) -> list[nn.Module]:
    """Return the norms whose running statistics are measured anew when the running task ends."""
    spec = attached.spec
    frozen = spec.norms == "freeze" and not first
    if spec.plasticity.norm_statistics == "running" or spec.norms == "share" or frozen:
        return []
    owners = dict.fromkeys(p.owner for p in attached.policies if p.name.endswith("running_mean"))
    return [norm for norm in map(attached.model.get_submodule, owners) if _can_be_reset(norm)]


def _can_be_reset(norm: nn.Module) -> bool:
    return hasattr(norm, "momentum") and hasattr(norm, "reset_running_stats")


def measure_norm_statistics(sequence: TaskSequence, inputs: RecentInputs) -> None:
    """Set running statistics to their averages over the task's last batches, under its hard mask.

    Parameters, other buffers, modes and random numbers stay as they are. On several processes each measures its own
    batches, and the averages over the ranks are taken.
    """
    model = sequence.attached.model
    norms = norms_to_measure(sequence.attached, sequence.state.finished == 0)
    if not norms or not inputs.calls:
        return
    with sequence.using_running(), torch.no_grad(), _other_state_kept(model, norms), _averaging(norms):
        for call in inputs.calls:
            model(*call.args, **call.kwargs)
    for norm in norms:
        for name in ("running_mean", "running_var"):
            value = norm.get_buffer(name)
            value.copy_(mean_over_ranks(value, samples=len(inputs.calls)))


@contextmanager
def _averaging(norms: list[nn.Module]) -> Iterator[None]:
    """Run the block with norms, in training mode, that average all their batches evenly from now on."""
    before = [(norm, norm.training, getattr(norm, "momentum", None)) for norm in norms]
    counters = [norm.get_buffer("num_batches_tracked").clone() for norm in norms]
    try:
        for norm in norms:
            norm.reset_running_stats()  # type: ignore[operator]
            norm.training, norm.momentum = True, None  # type: ignore[assignment]
        yield
    finally:
        for (norm, training, momentum), counter in zip(before, counters, strict=True):
            norm.training, norm.momentum = training, momentum  # type: ignore[assignment]
            norm.get_buffer("num_batches_tracked").copy_(counter)


@contextmanager
def _other_state_kept(model: nn.Module, norms: list[nn.Module]) -> Iterator[None]:
    """Run the block in training mode; restore modes, random numbers and all buffers but those of the norms."""
    own = {id(buffer) for norm in norms for buffer in norm.buffers(recurse=False)}
    buffers: list[tuple[Tensor, Tensor]] = [(b, b.clone()) for b in model.buffers() if id(b) not in own]
    modes, numbers = [(module, module.training) for module in model.modules()], random_state()
    try:
        model.train()
        yield
    finally:
        for module, training in modes:
            module.training = training
        for buffer, value in buffers:
            buffer.copy_(value)
        set_random_state(numbers)
