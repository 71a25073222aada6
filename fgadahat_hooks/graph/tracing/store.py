"""Labels beside storages, so that every view of a tensor sees, and writes, the same labels."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef

from fgadahat_hooks.graph.tracing.geometry import covers_storage, is_plain, may_overlap, memory_order, storage_key
from fgadahat_hooks.graph.tracing.labels import LIVE, ZERO, constant


@dataclass
class _Entry:
    """Labels of one storage: element `a` has label `values[(a // run) % len(values)]`.

    An activation whose labels vary by channel only needs one value a channel, whatever its memory format.
    """

    ref: StorageWeakRef
    dtype: torch.dtype
    nbytes: int
    values: Tensor
    run: int
    unread_zeros: bool = False

    def view(self, size: Sequence[int], stride: Sequence[int], offset: int) -> Tensor:
        """Return the labels at the places of a view, with stride zero along dimensions that do not matter."""
        period = self.run * self.values.numel()
        varying = [d for d, (n, s) in enumerate(zip(size, stride, strict=True)) if n > 1 and s % period]
        fine = [d for d in varying if stride[d] % self.run]
        if offset % self.run + sum((size[d] - 1) * stride[d] for d in fine) < self.run:
            varying = [d for d in varying if d not in fine]
        place = torch.tensor(offset, device="cpu")
        for d in varying:
            steps = torch.arange(size[d], device="cpu") * stride[d]
            place = place + steps.view([-1 if i == d else 1 for i in range(len(size))])
        found = self.values[(place // self.run) % self.values.numel()]
        return found.expand(torch.Size(size))

    def flat(self) -> Tensor:
        """Return one label for each element of the storage."""
        return self.view((self.nbytes // self.dtype.itemsize,), (1,), 0).contiguous().clone()


class LabelStore:
    """Labels of each storage that holds anything but live elements.

    Keys are storage identities kept unique by a weak reference, so nothing of the forward is kept alive. A storage
    without an entry is live throughout.
    """

    _SWEEP = 256

    def __init__(self) -> None:
        """Start with everything live."""
        self._entries: dict[int, _Entry] = {}
        self._permanent: set[int] = set()
        self._writes = 0

    def get(self, t: Tensor) -> Tensor | None:
        """Return the labels of `t`, shaped like it; None if all are live or `t` reinterprets the bytes."""
        entry = self._find(t)
        return None if entry is None else entry.view(t.shape, t.stride(), int(t.storage_offset()))

    def has(self, t: Tensor) -> bool:
        """Return whether anything is known of `t`."""
        return self._find(t) is not None

    def put(self, t: Tensor, labels: Tensor | int) -> None:
        """Write labels (broadcast to `t`'s shape) for the elements of `t`."""
        if not is_plain(t) or t.numel() == 0:
            return
        key = storage_key(t)
        if isinstance(labels, int):
            if labels == LIVE and key not in self._entries:
                return
            labels = constant(labels)
        labels = labels.expand(t.shape)
        self._sweep()
        if covers_storage(t):
            self._replace(key, t, labels)
        else:
            self._write_part(key, t, labels)

    def put_zeros(self, t: Tensor) -> None:
        """Note freshly made zeros: whether nothing unseen has been written into them is checked on first reading."""
        self.put(t, ZERO)
        entry = self._find(t)
        if entry is not None:
            entry.unread_zeros = True

    def check_zeros(self, t: Tensor) -> None:
        """Before the first reading of fresh zeros: are they still? A foreign kernel may have filled them unseen."""
        entry = self._find(t)
        if entry is None or not entry.unread_zeros:
            return
        entry.unread_zeros = False
        count = entry.nbytes // entry.dtype.itemsize
        if bool(torch.as_strided(t.detach(), (count,), (1,), 0).any()):
            self.forget([storage_key(t)])

    def keep(self, t: Tensor) -> None:
        """Except a tensor of the model's own from `alive`."""
        self._permanent.add(storage_key(t))

    def alive(self) -> list[int]:
        """Return the labelled storages that something still holds."""
        return [k for k, e in self._entries.items() if k not in self._permanent and not e.ref.expired()]

    def forget(self, keys: Iterable[int]) -> None:
        """Make storages live."""
        for key in keys:
            self._entries.pop(key, None)

    # -------------------------------------------------------------- inside
    def _find(self, t: Tensor) -> _Entry | None:
        if not self._entries or not is_plain(t):
            return None
        entry = self._entries.get(storage_key(t))
        if entry is None or entry.dtype != t.dtype or entry.nbytes != t.untyped_storage().nbytes():
            return None
        return entry

    def _replace(self, key: int, t: Tensor, labels: Tensor) -> None:
        """Write all of a storage."""
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

    def _sweep(self) -> None:
        self._writes += 1
        if self._writes % self._SWEEP == 0:
            self._entries = {k: e for k, e in self._entries.items() if not e.ref.expired()}
