"""Which of many changed tensors change the logits of finished tasks, each by itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from fgadahat_hooks.verify.report import Tasks


class Change(NamedTuple):
    """A tensor of the copy, its value before, and the value that is suspected."""

    name: str
    tensor: Tensor
    before: Tensor
    after: Tensor


def put_back(changes: Sequence[Change]) -> None:
    """Give every tensor its value before."""
    with torch.no_grad():
        for change in changes:
            change.tensor.copy_(change.before)


def blame(changes: Sequence[Change], look: Callable[[], Tasks]) -> dict[str, Tasks]:
    """Find the tensors that leak, by halves; a group that leaks nothing together is not looked into.

    Where a group leaks and neither of its halves does, all of it is named.

    Args:
        changes: The suspects; all have their values before, and have them again afterwards.
        look: Returns the tasks whose logits are changed now.
    """
    with torch.no_grad():
        for change in changes:
            change.tensor.copy_(change.after)
    found = look() if changes else ()
    put_back(changes)
    if not found or len(changes) == 1:
        return {changes[0].name: found} if found else {}
    half = len(changes) // 2
    parts = (blame(part, look) for part in (changes[:half], changes[half:]))
    alone = {name: tasks for part in parts for name, tasks in part.items()}
    return alone or {change.name: found for change in changes}
