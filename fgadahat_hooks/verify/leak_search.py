"""Which of many changed tensors change the logits of finished tasks, found by bisection."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from fgadahat_hooks.verify.report import Tasks

SEARCH_SECONDS = 20.0
"""Time after which leaks are named by groups of tensors."""


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


def find_leaks(
    changes: Sequence[Change], changed_tasks: Callable[[], Tasks], seconds: float = SEARCH_SECONDS
) -> dict[str, Tasks]:
    """Find the tensors that leak, by bisection; a group that does not leak as a whole is not searched.

    Where a group leaks and neither of its halves does, or where time is up, all tensors of it are returned.

    Args:
        changes: The changes to search; all tensors have their values before, and have them again afterwards.
        changed_tasks: Returns the tasks whose logits differ now.
        seconds: After this time no group is divided further.
    """
    return _search(changes, changed_tasks, time.monotonic() + seconds)


def _search(changes: Sequence[Change], changed_tasks: Callable[[], Tasks], until: float) -> dict[str, Tasks]:
    if not changes:
        return {}
    apply(changes)
    tasks = changed_tasks()
    restore(changes)
    if not tasks:
        return {}
    if len(changes) == 1:
        return {changes[0].name: tasks}
    leaks: dict[str, Tasks] = {}
    if time.monotonic() < until:
        half = len(changes) // 2
        leaks = _search(changes[:half], changed_tasks, until) | _search(changes[half:], changed_tasks, until)
    return leaks or {change.name: tasks for change in changes}
