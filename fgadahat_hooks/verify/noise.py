"""The static proof: noise in everything that is free."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor

from fgadahat_hooks.progress import NO_BAR, Bar
from fgadahat_hooks.tasks.sequence import TaskSequence
from fgadahat_hooks.verify.blame import Change, blame
from fgadahat_hooks.verify.entries import gated_entries, other_entries
from fgadahat_hooks.verify.report import Tasks, VerifyReport
from fgadahat_hooks.verify.scratch import Logits, changed, logits, seeded


def overwrite_free(scratch: TaskSequence, inputs: Any, bar: Bar = NO_BAR) -> VerifyReport:
    """Overwrite all that is free on a copy, and report whose logits that changes; a step of the bar per task, twice."""
    with seeded(), torch.no_grad():
        shake(scratch)
        before = logits(scratch, inputs, bar)
        entries = list(_free_entries(scratch))
        changes = [Change(name, tensor, tensor.clone(), _noisy(tensor, free)) for name, tensor, free in entries]
        look = partial(_look, scratch, inputs, before, bar)
        leaks = blame(changes, look)
    free = sum(int(free.sum()) for _, _, free in entries)
    total = sum(tensor.numel() for _, tensor, _ in entries)
    return VerifyReport(tuple(before), free, total - free, leaks)


def _look(scratch: TaskSequence, inputs: Any, before: Logits, bar: Bar) -> Tasks:
    return changed(before, logits(scratch, inputs, bar))


def shake(scratch: TaskSequence) -> None:
    """Randomise stored norm state and heads, so that no equality is vacuous: a zero head hides every leak."""
    roles = {p.name: p for p in scratch.attached.policies}
    for record in scratch.state.records.values():
        for name, value in record.tensors.items():
            if value.is_floating_point() and roles[name].role in ("norm", "head"):
                noise = torch.rand_like(value) + 0.5
                positive = "var" in name or roles[name].role == "norm"
                record.tensors[name] = noise if positive else noise - 1.0


def _free_entries(scratch: TaskSequence) -> Iterator[tuple[str, Tensor, Tensor]]:
    """Give name, data and a bool mask of the free entries of everything a later task may write."""
    for name, tensor, protected in gated_entries(scratch):
        yield name, tensor, ~protected
    for name, gate in scratch.attached.gates.items():
        embedding = gate.embedding
        yield f"{name}.embedding", embedding.data, torch.ones_like(embedding, dtype=torch.bool)
    for name, tensor, protection in other_entries(scratch):
        if protection in ("per_task", "shared"):
            yield name, tensor, torch.ones_like(tensor, dtype=torch.bool)


def _noisy(tensor: Tensor, free: Tensor) -> Tensor:
    return torch.where(free, torch.randn_like(tensor).abs() + 0.5, tensor)
