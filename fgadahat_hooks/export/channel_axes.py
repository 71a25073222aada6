"""The channel axis of each tensor of a forward: which axis runs along channels, and along which ones."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef

from fgadahat_hooks.export.channel_groups import ChannelGroups
from fgadahat_hooks.graph.tracing.storage import is_plain, storage_key

_ViewKey = tuple[int, int, torch.Size, tuple[int, ...]]


@dataclass(frozen=True)
class ChannelAxis:
    """One axis of a tensor, and the channel at each position along it."""

    axis: int
    channels: Tensor


class ChannelAxes:
    """The channel axes of all tensors alive, by storage, offset, shape and strides: equal views share one."""

    def __init__(self, groups: ChannelGroups) -> None:
        """Start with none."""
        self._groups = groups
        self._axes: dict[_ViewKey, ChannelAxis] = {}
        self._refs: dict[int, StorageWeakRef] = {}
        self._by_storage: dict[int, list[ChannelAxis]] = {}

    def get(self, t: Tensor) -> ChannelAxis | None:
        """Return the channel axis of a tensor; None if it is not tracked.

        If its memory is tracked in other shapes only, all channels in it are kept: what this reader uses is unknown.
        """
        if not is_plain(t) or storage_key(t) not in self._refs:
            return None
        found = self._axes.get(_view_key(t))
        if found is None:
            for other in self._by_storage[storage_key(t)]:
                self._groups.keep(other.channels, "read in another shape")
        return found

    def has(self, t: Tensor) -> bool:
        """Return whether a tensor has a channel axis, without keeping anything."""
        return is_plain(t) and _view_key(t) in self._axes

    def record(self, t: Tensor, channel_axis: ChannelAxis) -> None:
        """Record the channel axis of a tensor; an axis of size 1 is not tracked, since it may be expanded later."""
        if not is_plain(t) or t.shape[channel_axis.axis] <= 1:
            self._groups.keep(channel_axis.channels, "an axis of one place")
            return
        key = storage_key(t)
        self._refs.setdefault(key, StorageWeakRef(t.untyped_storage()))
        self._axes[_view_key(t)] = channel_axis
        self._by_storage.setdefault(key, []).append(channel_axis)


def _view_key(t: Tensor) -> _ViewKey:
    return storage_key(t), int(t.storage_offset()), t.shape, tuple(t.stride())
