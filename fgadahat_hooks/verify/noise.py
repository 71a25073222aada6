"""The static proof: overwrite every free element with noise."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor

from fgadahat_hooks.progress import NO_BAR, Bar
from fgadahat_hooks.tasks.sequence import TaskSequence
from fgadahat_hooks.verify.entries import gated_entries, other_entries
from fgadahat_hooks.verify.leak_search import Change, find_leaks
from fgadahat_hooks.verify.report import Tasks, VerifyReport
from fgadahat_hooks.verify.scratch import Logits, changed_tasks, seeded, task_logits


def overwrite_free(scratch: TaskSequence, inputs: Any, bar: Bar = NO_BAR) -> VerifyReport:
    """Overwrite all free elements of a copy, and report whose logits change; the bar advances twice for each task."""
    with seeded(), torch.no_grad():
        randomise_stored_tensors(scratch)
        before = task_logits(scratch, inputs, bar)
        entries = list(_free_entries(scratch))
        changes = [Change(name, tensor, tensor.clone(), _with_noise(tensor, free)) for name, tensor, free in entries]
        leaks = find_leaks(changes, partial(_changed_tasks, scratch, inputs, before, bar))
    free = sum(int(free.sum()) for _, _, free in entries)
    total = sum(tensor.numel() for _, tensor, _ in entries)
    return VerifyReport(tuple(before), free, total - free, leaks)


def _changed_tasks(scratch: TaskSequence, inputs: Any, before: Logits, bar: Bar) -> Tasks:
    return changed_tasks(before, task_logits(scratch, inputs, bar))


def randomise_stored_tensors(scratch: TaskSequence) -> None:
    """Randomise stored norm state and heads, so that no comparison is vacuous: a zero head would hide every leak."""
    roles = {p.name: p for p in scratch.attached.policies}
    for record in scratch.state.records.values():
        for name, value in record.tensors.items():
            if value.is_floating_point() and roles[name].role in ("norm", "head"):
                noise = torch.rand_like(value) + 0.5
                positive = "var" in name or roles[name].role == "norm"
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
