"""Labels beside storages, so that every view of a tensor sees, and writes, the same labels."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef

from fgadahat_hooks.tracing.labels import LIVE


def storage_key(t: Tensor) -> int:
    """Return the identity of a tensor's storage, stable while the storage or a weak reference to it lives."""
    return int(t.untyped_storage()._cdata)


class LabelStore:
    """A flat array of labels for each storage that holds anything but live elements.

    Keys are storage identities kept unique by a weak reference, so nothing of the forward is kept alive. A storage
    without an entry is live throughout.
    """

    _SWEEP = 256

    def __init__(self) -> None:
        """Start with everything live."""
        self._flat: dict[int, tuple[StorageWeakRef, Tensor, int]] = {}
        self._writes = 0

    def get(self, t: Tensor) -> Tensor | None:
        """Return the labels of `t`, a view shaped like it; None if all are live or `t` reinterprets the bytes."""
        entry = self._flat.get(storage_key(t)) if t.layout == torch.strided else None
        if entry is None or entry[2] != t.itemsize:
            return None
        return entry[1].as_strided(t.size(), t.stride(), t.storage_offset())

    def put(self, t: Tensor, labels: Tensor | int) -> None:
        """Write labels (broadcast to `t`'s shape) for the elements of `t`."""
        if t.layout != torch.strided or t.numel() == 0:
            return
        key = storage_key(t)
        entry = self._flat.get(key)
        if entry is not None and entry[2] != t.itemsize:
            self._flat.pop(key)
            entry = None
        if entry is None and isinstance(labels, int) and labels == LIVE:
            return
        if entry is None:
            entry = self._create(t, key)
        view = entry[1].as_strided(t.size(), t.stride(), t.storage_offset())
        if isinstance(labels, int):
            view.fill_(labels)
        elif not _overlaps(t):
            view.copy_(labels)
        else:
            view.fill_(LIVE)

    def _create(self, t: Tensor, key: int) -> tuple[StorageWeakRef, Tensor, int]:
        self._writes += 1
        if self._writes % self._SWEEP == 0:
            self._flat = {k: e for k, e in self._flat.items() if not e[0].expired()}
        size = t.untyped_storage().nbytes() // t.itemsize
        flat = torch.full((size,), LIVE, dtype=torch.int32)
        entry = self._flat[key] = (StorageWeakRef(t.untyped_storage()), flat, t.itemsize)
        return entry


def _overlaps(t: Tensor) -> bool:
    """Return whether elements of a view share memory (an expanded dimension)."""
    return any(s == 0 and n > 1 for s, n in zip(t.stride(), t.shape, strict=True))
