"""Which of many changed tensors change the logits of finished tasks, found by bisection."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from fgadahat_hooks.verify.report import Tasks


class Change(NamedTuple):
    """A tensor of the copy, its value before, and its value after the change under test."""

    name: str
    tensor: Tensor
    before: Tensor
    after: Tensor


def apply(changes: Sequence[Change]) -> None:
    """Set every tensor to its value after the change."""
    with torch.no_grad():
        for change in changes:
            change.tensor.copy_(change.after)


def restore(changes: Sequence[Change]) -> None:
    """Set every tensor to its value before the change."""
    with torch.no_grad():
        for change in changes:
            change.tensor.copy_(change.before)


def find_leaks(changes: Sequence[Change], changed_tasks: Callable[[], Tasks]) -> dict[str, Tasks]:
    """Find the tensors that leak, by bisection; a group that does not leak as a whole is not searched.

    Where a group leaks and neither of its halves does, all tensors of it are returned.

    Args:
        changes: The changes to search; all tensors have their values before, and have them again afterwards.
        changed_tasks: Returns the tasks whose logits differ now.
    """
    if not changes:
        return {}
    apply(changes)
    tasks = changed_tasks()
    restore(changes)
    if not tasks:
        return {}
    if len(changes) == 1:
        return {changes[0].name: tasks}
    half = len(changes) // 2
    leaks = find_leaks(changes[:half], changed_tasks) | find_leaks(changes[half:], changed_tasks)
    return leaks or {change.name: tasks for change in changes}
