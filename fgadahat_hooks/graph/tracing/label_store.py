"""Labels by storage, so that every view of a tensor reads and writes the same labels."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef

from fgadahat_hooks.graph.tracing.labels import LIVE, ZERO, constant
from fgadahat_hooks.graph.tracing.storage import covers_storage, is_plain, may_overlap, memory_order, storage_key


@dataclass
class _Entry:
    """Labels of one storage: element `i` has label `values[(i // run) % len(values)]`.

    So an activation whose labels vary by channel only needs one value a channel, whatever its memory format.
    """

    ref: StorageWeakRef
    dtype: torch.dtype
    nbytes: int
    values: Tensor
    run: int
    unread_zeros: bool = False

    def view(self, size: Sequence[int], stride: Sequence[int], offset: int) -> Tensor:
        """Return the labels of a view, with stride zero along the dimensions over which they are constant."""
        index = torch.tensor(offset, device="cpu")
        for d in self._varying_dims(size, stride, offset):
            steps = torch.arange(size[d], device="cpu") * stride[d]
            index = index + steps.view([-1 if i == d else 1 for i in range(len(size))])
        found = self.values[(index // self.run) % self.values.numel()]
        return found.expand(torch.Size(size))

    def _varying_dims(self, size: Sequence[int], stride: Sequence[int], offset: int) -> list[int]:
        """Return the dimensions of a view along which labels may vary."""
        period = self.run * self.values.numel()
        varying = [d for d, (n, s) in enumerate(zip(size, stride, strict=True)) if n > 1 and s % period]
        fine = [d for d in varying if stride[d] % self.run]
        if offset % self.run + sum((size[d] - 1) * stride[d] for d in fine) < self.run:  # they stay inside one run
            varying = [d for d in varying if d not in fine]
        return varying

    def flat(self) -> Tensor:
        """Return one label for each element of the storage."""
        return self.view((self.nbytes // self.dtype.itemsize,), (1,), 0).contiguous().clone()


class LabelStore:
    """Labels of each storage that holds anything but live elements.

    Keys are storage identities. A weak reference keeps each of them unique, so no tensor of the forward is kept alive.
    A storage without an entry is live throughout.
    """

    _WRITES_PER_SWEEP = 256

    def __init__(self) -> None:
        """Start without entries: everything is live."""
        self._entries: dict[int, _Entry] = {}
        self._permanent: set[int] = set()
        self._writes = 0

    def get(self, t: Tensor) -> Tensor | None:
        """Return the labels of `t`, shaped like it; None if all are live or `t` reinterprets the bytes."""
        entry = self._find(t)
        return None if entry is None else entry.view(t.shape, t.stride(), int(t.storage_offset()))

    def has(self, t: Tensor) -> bool:
        """Return whether there are labels of `t`."""
        return self._find(t) is not None

    def put(self, t: Tensor, labels: Tensor | int) -> None:
        """Write labels, broadcast to the shape of `t`, for the elements of `t`."""
        if not is_plain(t) or t.numel() == 0:
            return
        key = storage_key(t)
        if isinstance(labels, int):
            if labels == LIVE and key not in self._entries:
                return
            labels = constant(labels)
        labels = labels.expand(t.shape)
        self._remove_expired()
        if covers_storage(t):
            self._replace(key, t, labels)
        else:
            self._write_part(key, t, labels)

    def put_zeros(self, t: Tensor) -> None:
        """Label new zeros; before they are first read, `check_zeros` looks for values written into them unseen."""
        self.put(t, ZERO)
        entry = self._find(t)
        if entry is not None:
            entry.unread_zeros = True

    def check_zeros(self, t: Tensor) -> None:
        """Check new zeros before they are first read: make them live if a foreign kernel has filled them unseen."""
        entry = self._find(t)
        if entry is None or not entry.unread_zeros:
            return
        entry.unread_zeros = False
        count = entry.nbytes // entry.dtype.itemsize
        if bool(torch.as_strided(t.detach(), (count,), (1,), 0).any()):
            self.forget([storage_key(t)])

    def mark_permanent(self, t: Tensor) -> None:
        """Leave a tensor out of `held_storages`: the model itself owns it."""
        self._permanent.add(storage_key(t))

    def held_storages(self) -> list[int]:
        """Return the labelled storages that something still holds."""
        return [k for k, e in self._entries.items() if k not in self._permanent and not e.ref.expired()]

    def forget(self, keys: Iterable[int]) -> None:
        """Make storages live, given by `storage_key`."""
        for key in keys:
            self._entries.pop(key, None)

    # -------------------------------------------------------------- entries
    def _find(self, t: Tensor) -> _Entry | None:
        if not self._entries or not is_plain(t):
            return None
        entry = self._entries.get(storage_key(t))
        if entry is None or entry.dtype != t.dtype or entry.nbytes != t.untyped_storage().nbytes():
            return None
        return entry

    def _replace(self, key: int, t: Tensor, labels: Tensor) -> None:
        """Write all labels of a storage, which `t` covers."""
        order = memory_order(t)
        while order and labels.stride(order[0]) == 0:
            order.pop(0)
        run = 1
        while order and labels.stride(order[-1]) == 0:
            run *= t.shape[order.pop()]
        for d in range(t.dim()):
            labels = labels if d in order else labels.narrow(d, 0, 1)
        values = labels.permute([*order, *(d for d in range(t.dim()) if d not in order)]).flatten()
        if bool((values == values[0]).all()):
            values, run = values[:1], t.numel()
            if int(values) == LIVE:
                self._entries.pop(key, None)
                return
        self._entries[key] = self._entry(t, values.contiguous(), run)

    def _write_part(self, key: int, t: Tensor, labels: Tensor) -> None:
        """Write the labels of a view; the rest of the storage keeps its labels."""
        entry = self._find(t)
        count = t.untyped_storage().nbytes() // t.itemsize
        flat = torch.full((count,), LIVE, dtype=torch.int32, device="cpu") if entry is None else entry.flat()
        view = flat.as_strided(t.size(), t.stride(), t.storage_offset())
        if may_overlap(t):
            view.fill_(LIVE)
        else:
            view.copy_(labels)
        self._entries[key] = self._entry(t, flat, 1)

    def _entry(self, t: Tensor, values: Tensor, run: int) -> _Entry:
        storage = t.untyped_storage()
        return _Entry(StorageWeakRef(storage), t.dtype, storage.nbytes(), values, run)

    def _remove_expired(self) -> None:
        self._writes += 1
        if self._writes % self._WRITES_PER_SWEEP == 0:
            self._entries = {k: e for k, e in self._entries.items() if not e.ref.expired()}
