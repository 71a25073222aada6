"""The static proof: overwrite every free element with noise."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor

from fgadahat_hooks.errors import BadCallError
from fgadahat_hooks.progress import NO_BAR, Bar
from fgadahat_hooks.tasks.sequence import TaskSequence
from fgadahat_hooks.verify.entries import gated_entries, other_entries
from fgadahat_hooks.verify.leak_search import Change, apply, find_leaks, restore
from fgadahat_hooks.verify.report import Tasks, VerifyReport
from fgadahat_hooks.verify.scratch import Logits, changed_tasks, overflown, seeded, task_logits


def overwrite_free(scratch: TaskSequence, inputs: Any, bar: Bar = NO_BAR) -> VerifyReport:
    """Overwrite all free elements of a copy, and report whose logits change; the bar advances twice for each task.

    Noise by which the logits overflow is replaced by noise of the size of the values themselves.

    Raises:
        BadCallError: The logits of a finished task are not finite on these inputs: a leak could not be seen.
    """
    with seeded(), torch.no_grad():
        before = _randomised_logits(scratch, inputs, bar)
        entries = list(_free_entries(scratch))
        changes = _changes(entries, _with_noise)
        apply(changes)
        after = task_logits(scratch, inputs, bar)
        restore(changes)
        changed = changed_tasks(before, after)
        if changed and overflown(after):
            changes = _changes(entries, _with_small_noise)
        leaks = find_leaks(changes, partial(_changed_tasks, scratch, inputs, before)) if changed else {}
    free = sum(int(free.sum()) for _, _, free in entries)
    total = sum(tensor.numel() for _, tensor, _ in entries)
    return VerifyReport(tuple(before), free, total - free, leaks)


def _randomised_logits(scratch: TaskSequence, inputs: Any, bar: Bar) -> Logits:
    """Randomise stored tensors as strongly as the logits stay finite; return the logits."""
    stored = {task: dict(record.tensors) for task, record in scratch.state.records.items()}
    for strength in (1.0, 0.1):
        randomise_stored_tensors(scratch, strength)
        before = task_logits(scratch, inputs)
        if not overflown(before):
            for _ in before:
                bar.advance()
            return before
        for task, tensors in stored.items():
            scratch.state.records[task].tensors = dict(tensors)
    bad = overflown(task_logits(scratch, inputs)) or overflown(before)
    raise BadCallError(
        f"Expected inputs on which finished tasks give finite logits, but those of {', '.join(map(repr, bad))} are "
        "NaN, or most of them infinite: a leak could not be seen, and nothing would be proved. Pass inputs like "
        "those that the tasks were trained on, in the precision that they were trained in: session.verify(inputs)."
    )


def _changes(entries: list[tuple[str, Tensor, Tensor]], noisy: Callable[[Tensor, Tensor], Tensor]) -> list[Change]:
    return [Change(name, tensor, tensor.clone(), noisy(tensor, free)) for name, tensor, free in entries]


def _changed_tasks(scratch: TaskSequence, inputs: Any, before: Logits) -> Tasks:
    return changed_tasks(before, task_logits(scratch, inputs))


def randomise_stored_tensors(scratch: TaskSequence, strength: float = 1.0) -> None:
    """Randomise stored norm state and heads, so that no comparison is vacuous: a zero head would hide every leak.

    Args:
        scratch: The copy.
        strength: 1 replaces the values; below, they are kept, and noise of this share of their size is added.
    """
    roles = {p.name: p for p in scratch.attached.policies}
    for record in scratch.state.records.values():
        for name, value in record.tensors.items():
            if value.is_floating_point() and roles[name].role in ("norm", "head"):
                noise = torch.rand_like(value) + 0.5
                positive = "var" in name or roles[name].role == "norm"
                if strength < 1:
                    record.tensors[name] = value + strength * (noise - 0.5) * (value.abs() + value.abs().mean())
                else:
                    record.tensors[name] = noise if positive else noise - 1.0


def _free_entries(scratch: TaskSequence) -> Iterator[tuple[str, Tensor, Tensor]]:
    """Yield name, data and a bool mask of the free elements of each tensor that a later task may write."""
    for name, tensor, protected in gated_entries(scratch):
        yield name, tensor, ~protected
    for name, gate in scratch.attached.gates.items():
        embedding = gate.embedding
        yield f"{name}.embedding", embedding.data, torch.ones_like(embedding, dtype=torch.bool)
    for name, tensor, protection in other_entries(scratch):
        if protection in ("per_task", "shared"):
            yield name, tensor, torch.ones_like(tensor, dtype=torch.bool)


def _with_noise(tensor: Tensor, free: Tensor) -> Tensor:
    return torch.where(free, torch.randn_like(tensor).abs() + 0.5, tensor)


def _with_small_noise(tensor: Tensor, free: Tensor) -> Tensor:
    """Return the tensor with other free values, on average about as large as they were."""
    size = tensor.abs().mean().clamp(min=torch.finfo(tensor.dtype).tiny) if tensor.numel() else 1.0
    return torch.where(free, size * torch.randn_like(tensor), tensor)
