"""Which axis of each activation of a forward runs along slots, and along which."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef

from fgadahat_hooks.export.slots import Slots
from fgadahat_hooks.graph.tracing.geometry import is_plain, storage_key

_Place = tuple[int, int, torch.Size, tuple[int, ...]]


@dataclass(frozen=True)
class Line:
    """One slot for each place along one axis of a tensor."""

    axis: int
    slots: Tensor


class Lines:
    """The lines of all tensors that are alive, by the memory they cover: views of the same places are the same."""

    def __init__(self, slots: Slots) -> None:
        """Start with none."""
        self._slots = slots
        self._lines: dict[_Place, Line] = {}
        self._refs: dict[int, StorageWeakRef] = {}
        self._by_storage: dict[int, list[Line]] = {}

    def get(self, t: Tensor) -> Line | None:
        """Return the line of a tensor; None if it is not followed.

        Of memory that is followed in other shapes only, all slots are fixed: nothing is known of this reader.
        """
        if not is_plain(t) or storage_key(t) not in self._refs:
            return None
        line = self._lines.get(_place(t))
        if line is None:
            for other in self._by_storage[storage_key(t)]:
                self._slots.fix(other.slots, "read in another shape")
        return line

    def knows(self, t: Tensor) -> bool:
        """Return whether a tensor has a line, fixing nothing."""
        return is_plain(t) and _place(t) in self._lines

    def put(self, t: Tensor, line: Line) -> None:
        """Note the line of a tensor; an axis of one place has none, since it may be spread later."""
        if not is_plain(t) or t.shape[line.axis] <= 1:
            self._slots.fix(line.slots, "an axis of one place")
            return
        key = storage_key(t)
        self._refs.setdefault(key, StorageWeakRef(t.untyped_storage()))
        self._lines[_place(t)] = line
        self._by_storage.setdefault(key, []).append(line)


def _place(t: Tensor) -> _Place:
    return storage_key(t), int(t.storage_offset()), t.shape, tuple(t.stride())
