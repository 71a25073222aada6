"""Channel groups: sets of channels that can only be removed together."""

from __future__ import annotations

import torch
from torch import Tensor

UNTRACKED = 0
"""The channel of every position that is not tracked: whatever is joined with it is kept."""


def untracked(count: int) -> Tensor:
    """Return `UNTRACKED` for each of `count` positions."""
    return torch.full((count,), UNTRACKED, device="cpu")


class ChannelGroups:
    """Disjoint sets of channels, each removable unless there is a reason to keep it."""

    def __init__(self) -> None:
        """Start with `UNTRACKED` alone."""
        self._parent = [UNTRACKED]
        self._reasons: dict[int, str] = {}

    def new_channels(self, count: int) -> Tensor:
        """Return new channels, `(count,)`, each a group of its own."""
        first = len(self._parent)
        self._parent.extend(range(first, first + count))
        return torch.arange(first, first + count, device="cpu")

    def group(self, channel: int) -> int:
        """Return the channel that represents the group of a channel."""
        parent = self._parent
        while parent[channel] != channel:
            parent[channel] = channel = parent[parent[channel]]
        return channel

    def join(self, a: Tensor, b: Tensor, reason: str) -> None:
        """Join the groups of channels pairwise; a channel paired with `UNTRACKED` is kept, for the reason given."""
        for x, y in zip(a.tolist(), b.tolist(), strict=True):
            if UNTRACKED in (x, y):
                self._keep(max(x, y), reason)
            else:
                self._merge(self.group(x), self.group(y))

    def _merge(self, a: int, b: int) -> None:
        if a != b:
            self._parent[b] = a
            if b in self._reasons:
                self._reasons.setdefault(a, self._reasons.pop(b))

    def keep(self, channels: Tensor, reason: str) -> None:
        """Keep the groups of channels; of several reasons for a group the first is stored."""
        for channel in channels.tolist():
            self._keep(channel, reason)

    def _keep(self, channel: int, reason: str) -> None:
        if channel != UNTRACKED:
            self._reasons.setdefault(self.group(channel), reason)

    def reason(self, channel: int) -> str | None:
        """Return why the group of a channel is kept; None if it can be removed."""
        return self._reasons.get(self.group(channel))

    def removable(self, channels: Tensor) -> Tensor:
        """Return which channels can be removed, bool."""
        free = [self.reason(channel) is None for channel in channels.tolist()]
        return torch.tensor(free, dtype=torch.bool, device="cpu")
