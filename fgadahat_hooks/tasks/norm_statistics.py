"""Running statistics under the mask that is served: measured anew when a task ends.

During training, running statistics lag behind the weights, and while masks are soft they are those of soft masks.
Evaluation uses the weights and the hard mask that the task ends with, so the statistics must be those of both.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm as BatchNorm

from fgadahat_hooks.distributed.ranks import is_first_rank
from fgadahat_hooks.gates.attached_model import AttachedModel
from fgadahat_hooks.tasks.random_states import random_state, set_random_state
from fgadahat_hooks.tasks.recent_forwards import RecentForwards
from fgadahat_hooks.tasks.recorded_forward import RecordedForward, version_of
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
    return isinstance(norm, BatchNorm)  # others understand a momentum of None in their own ways


def measure_norm_statistics(sequence: TaskSequence, recent: RecentForwards, trained: bool) -> str | None:
    """Set running statistics to their averages over the task's last batches, under its hard mask.

    Parameters, other buffers, modes and random numbers stay as they are. Of several processes the first one measures;
    the others take over its buffers when the task is stored.

    Args:
        sequence: The tasks; one is running.
        recent: Its last training forwards.
        trained: Whether it made any step.

    Returns:
        Why the statistics could not be measured, None if they were or need not be.
    """
    model, forwards = sequence.attached.model, [f for f in recent.forwards if f.unchanged]
    wanted = norms_to_measure(sequence.attached, sequence.state.finished == 0)
    if wanted and trained and not forwards:
        return recent.reason_for_none
    norms = _trained(model, wanted, forwards)
    if not norms or not is_first_rank():
        return None
    running, averaging = sequence.using_running(), _averaging(norms)
    with _restored_on_error(norms) as failed, running, torch.no_grad(), buffers_kept(model, norms), averaging:
        for forward in forwards:
            recent.set_modes(forward)
            recent.run(model, forward)
    return failed[0] if failed else None


@contextmanager
def _restored_on_error(norms: list[nn.Module]) -> Iterator[list[str]]:
    """Run the block; if it raises, restore the norms' buffers, and add what it raised to the list."""
    buffers = [buffer for norm in norms for buffer in norm.buffers(recurse=False)]
    before, failed = [buffer.clone() for buffer in buffers], list[str]()
    try:
        yield failed
    except Exception as error:
        for buffer, value in zip(buffers, before, strict=True):
            buffer.copy_(value)
        failed.append(f"running its last batches again raised {type(error).__name__}: {error}")


def _trained(model: nn.Module, norms: list[nn.Module], forwards: list[RecordedForward]) -> list[nn.Module]:
    """Return those of the norms that were in training mode in some forward."""
    names = {id(module): name for name, module in model.named_modules()}
    return [n for n in norms if any(names[id(n)] not in forward.evaluating for forward in forwards)]


_STATISTICS = ("running_mean", "running_var", "num_batches_tracked")


@contextmanager
def _averaging(norms: list[nn.Module]) -> Iterator[None]:
    """Run the block with norms that average all their batches evenly from now on, each process its own."""
    before = [(norm, getattr(norm, "momentum", None)) for norm in norms]
    buffers = [(norm, {name: norm.get_buffer(name).clone() for name in _STATISTICS}) for norm in norms]
    synchronised = [norm for norm in norms if isinstance(norm, nn.SyncBatchNorm)]
    try:
        for norm in norms:
            norm.reset_running_stats()  # type: ignore[operator]
            norm.momentum = None  # type: ignore[assignment]
        for norm in synchronised:  # the other processes run no forward, so that it cannot wait for them
            norm.__dict__["forward"] = partial(BatchNorm.forward, norm)
        yield
    finally:
        for norm in synchronised:
            norm.__dict__.pop("forward", None)
        for norm, momentum in before:
            norm.momentum = momentum  # type: ignore[assignment]
        _restore_counters(buffers)


def _restore_counters(buffers: list[tuple[nn.Module, dict[str, Tensor]]]) -> None:
    """Restore the norms' counts of batches, and the statistics of norms that no forward reached."""
    for norm, values in buffers:
        reached = bool(norm.get_buffer("num_batches_tracked"))
        for name in _STATISTICS[2:] if reached else _STATISTICS:
            norm.get_buffer(name).copy_(values[name])


@contextmanager
def buffers_kept(model: nn.Module, norms: Sequence[nn.Module] = ()) -> Iterator[None]:
    """Run the block; restore modes, random numbers and all buffers but those of the norms."""
    own = {id(buffer) for norm in norms for buffer in norm.buffers(recurse=False)}
    buffers = [(module, name, b, b.clone(), version_of(b)) for module, name, b in _buffers(model) if id(b) not in own]
    modes, numbers = [(module, module.training) for module in model.modules()], random_state()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
        set_random_state(numbers)
        for module, name, buffer, value, version in buffers:
            module._buffers[name] = buffer  # the forward may have assigned another
            if version_of(buffer) != version:
                buffer.copy_(value)


def _buffers(model: nn.Module) -> Iterator[tuple[nn.Module, str, Tensor]]:
    """Yield every buffer with its module and its name there."""
    for module in model.modules():
        yield from ((module, name, buffer) for name, buffer in module._buffers.items() if buffer is not None)
