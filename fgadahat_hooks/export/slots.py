"""Slots: places along the axes of parameters and buffers, joined where one cannot go without the other."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from fgadahat_hooks.graph.tracing.geometry import is_plain, storage_key
from fgadahat_hooks.layers import LayerType, layer_type_of

FIXED = 0
"""The slot of whatever is not followed: what is joined with it stays."""


class Slots:
    """Numbered slots in classes; a class goes as a whole, or stays as a whole because of a reason."""

    def __init__(self) -> None:
        """Start with `FIXED` alone."""
        self._parent = [FIXED]
        self._reasons: dict[int, str] = {}

    def add(self, count: int) -> Tensor:
        """Return the numbers of new slots, `(count,)` long."""
        first = len(self._parent)
        self._parent.extend(range(first, first + count))
        return torch.arange(first, first + count, device="cpu")

    def root(self, slot: int) -> int:
        """Return the number that stands for the class of a slot."""
        parent = self._parent
        while parent[slot] != slot:
            parent[slot] = slot = parent[parent[slot]]
        return slot

    def join(self, a: Tensor, b: Tensor, reason: str) -> None:
        """Join slots pairwise; those that meet `FIXED` stay, for the reason given."""
        for x, y in zip(a.tolist(), b.tolist(), strict=True):
            if FIXED in (x, y):
                self._fix(max(x, y), reason)
            else:
                self._unite(self.root(x), self.root(y))

    def _unite(self, a: int, b: int) -> None:
        if a != b:
            self._parent[b] = a
            if b in self._reasons:
                self._reasons.setdefault(a, self._reasons.pop(b))

    def fix(self, slots: Tensor, reason: str) -> None:
        """Let the classes of slots stay; the first reason is kept."""
        for slot in slots.tolist():
            self._fix(slot, reason)

    def _fix(self, slot: int, reason: str) -> None:
        if slot != FIXED:
            self._reasons.setdefault(self.root(slot), reason)

    def reason(self, slot: int) -> str | None:
        """Return why a slot stays; None if it may go."""
        return self._reasons.get(self.root(slot))

    def free(self, slots: Tensor) -> Tensor:
        """Return which slots may go, bool."""
        return torch.tensor([self.reason(slot) is None for slot in slots.tolist()], dtype=torch.bool, device="cpu")


@dataclass
class Sliced:
    """A parameter or buffer with slots along its axes.

    Attributes:
        shape: Its shape.
        stride: Its strides.
        axes: Slots along each axis that may be cut.
        owners: Name of the module and local name, of every module that has it.
        layer: Name of the layer whose weight it is.
        kind: Type of that layer.
        groups: Groups of that layer, if it is a convolution.
        apart: Slots of the units where no axis of the weight counts them all, as in a grouped transposed convolution.
        used: Whether the forward used it as the weight of its layer.
    """

    shape: torch.Size
    stride: tuple[int, ...]
    axes: dict[int, Tensor]
    owners: list[tuple[str, str]] = field(default_factory=list)
    layer: str | None = None
    kind: LayerType | None = None
    groups: int = 1
    apart: Tensor | None = None
    used: bool = False

    @property
    def outputs(self) -> Tensor | None:
        """Slots of the units of a layer; None for what is no layer's weight."""
        return self.apart if self.kind is None or self.apart is not None else self.axes.get(self.kind.weight_axis)

    @property
    def inputs(self) -> Tensor | None:
        """Slots of the input features; None if there are none, or if they go with the units, group by group."""
        return None if self.kind is None or self.groups > 1 else self.axes.get(1 - self.kind.weight_axis)


class SlotTable:
    """The slots of every parameter and buffer of a model, found by the memory that an operation reads."""

    def __init__(self, model: nn.Module) -> None:
        """Give slots to units and input features of the layers' weights, and to vectors."""
        self.slots = Slots()
        self.entries: dict[int, Sliced] = {}
        self.tensors: dict[int, Tensor] = {}
        self._shared: set[int] = set()
        for path, module in model.named_modules():
            for local, tensor in (*module._parameters.items(), *module._buffers.items()):
                if tensor is not None and is_plain(tensor) and tensor.numel() > 1:
                    self._add(path, module, local, tensor)

    def _add(self, path: str, module: nn.Module, local: str, tensor: Tensor) -> None:
        key = storage_key(tensor)
        entry = self.entries.get(key)
        if entry is None:
            entry = self.entries[key] = Sliced(tensor.shape, tensor.stride(), {})
            self.tensors[key] = tensor
        if (entry.shape, entry.stride) != (tensor.shape, tensor.stride()) or tensor.storage_offset():
            self._shared.add(key)
        entry.owners.append((path, local))
        kind = layer_type_of(module) if local == "weight" else None
        if kind is not None:
            if entry.layer is None or not entry.axes or entry.inputs is None:
                entry.layer, entry.kind, entry.groups = path, kind, int(getattr(module, "groups", 1))
                entry.axes = {
                    axis: self.slots.add(tensor.shape[axis]) for axis in _cuttable(kind, module, entry.groups)
                }
                apart = kind.weight_axis not in entry.axes
                entry.apart = self.slots.add(kind.units(module)) if apart else None
        elif not entry.axes and sum(n > 1 for n in tensor.shape) == 1:
            axis = next(d for d, n in enumerate(tensor.shape) if n > 1)
            entry.axes = {axis: self.slots.add(tensor.shape[axis])}

    def fix_odd(self) -> None:
        """Let tensors stay that share memory in another shape."""
        for key in self._shared:
            self.fix_entry(self.entries[key], "memory is shared")

    def weight(self, t: Tensor) -> Sliced | None:
        """Return the entry of which `t` is a view, if it is a layer's weight."""
        entry = self.entries.get(storage_key(t)) if is_plain(t) else None
        return entry if entry is not None and entry.layer is not None else None

    def fix_entry(self, entry: Sliced, reason: str) -> None:
        """Let a whole tensor stay as it is."""
        for slots in entry.axes.values():
            self.slots.fix(slots, reason)

    def vectors(self) -> Iterator[tuple[Tensor, int, Tensor]]:
        """Yield each tensor that is no weight but has slots, with its axis and slots."""
        for key, entry in self.entries.items():
            if entry.layer is None:
                yield from ((self.tensors[key], axis, slots) for axis, slots in entry.axes.items())

    def layers(self) -> Iterable[Sliced]:
        """Return the entries of layers' weights."""
        return [entry for entry in self.entries.values() if entry.layer is not None]


def _cuttable(kind: LayerType, module: nn.Module, groups: int) -> tuple[int, ...]:
    """Return the axes along which a layer's weight can be cut.

    Groups of a convolution lie one after another along axis 0 and go as a whole. A table of words keeps its words.
    """
    if groups > 1:
        return (0,)
    return (0, 1) if kind.inputs(module) else (kind.weight_axis,)
