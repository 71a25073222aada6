"""What the traced forward does with each layer: who feeds it, who reads it, where its gate can act."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef

from fgadahat_hooks.graph import Activation
from fgadahat_hooks.layers import LayerType
from fgadahat_hooks.tracing.labels import LIVE, ZERO, LabelTable
from fgadahat_hooks.tracing.store import LabelStore, storage_key

ACTIVATIONS = frozenset("relu gelu silu hardswish leaky_relu elu selu celu tanh hardtanh mish".split())


@dataclass
class LayerRecord:
    """Everything the forward showed of one Linear or Conv2d.

    Each unit has two atoms, `raw + i` for the layer's own output and `normed + i` for the output of a norm behind it;
    which of them the gate makes zero is known only at the end.
    """

    name: str
    module: nn.Module
    kind: LayerType
    raw: int
    inputs: Tensor | None = None
    hosts: list[str] = field(default_factory=list)
    called: bool = False
    whole: bool = False
    norms: list[str] = field(default_factory=list)
    read_elsewhere: bool = False
    readers: dict[str, list[Activation | None]] = field(default_factory=lambda: {"raw": [], "normed": []})
    read_site: dict[str, int] = field(default_factory=dict)

    @property
    def weight(self) -> Tensor:
        """The layer's weight."""
        return self.module.get_parameter("weight")

    @property
    def units(self) -> int:
        """Number of units."""
        return self.kind.units(self.module)

    @property
    def normed(self) -> int:
        """Atom of the first unit behind a norm."""
        return self.raw + self.units

    @property
    def reached(self) -> bool:
        """Whether the forward used the layer."""
        return self.called or bool(self.hosts) or self.whole


class Recorder:
    """Bookkeeping of one traced forward."""

    def __init__(self, layers: Mapping[str, tuple[nn.Module, LayerType]], targets: set[str]) -> None:
        """Give every layer its atoms.

        Args:
            layers: All Linear and Conv2d layers of the model, gated or not.
            targets: Names of those that a gate may get; the others are live in the end, and tracked only so that
                the output layer can be found.
        """
        self.table = LabelTable()
        self.store = LabelStore()
        self.records: dict[str, LayerRecord] = {}
        self.order: list[str] = []
        self.norm_feeds: dict[str, set[str]] = {}
        self.owners: dict[int, str] = {}
        self._atoms = 0
        self._raw: dict[int, tuple[StorageWeakRef, str]] = {}
        self._gated: dict[int, tuple[StorageWeakRef, str, str]] = {}
        for name, (module, kind) in layers.items():
            self._add(name, module, kind, probe=name not in targets)

    def _add(self, name: str, module: nn.Module, kind: LayerType, probe: bool) -> None:
        record = self.records[name] = LayerRecord(name, module, kind, self._atoms)
        self._atoms += 2 * record.units
        if probe:
            self.table.add_probes(range(record.raw, self._atoms))
        self.owners[storage_key(record.weight)] = name
        bias = module._parameters.get("bias")
        if bias is not None:
            self.store.put(bias, self.atoms(record, "raw"))

    def atoms(self, record: LayerRecord, kind: str) -> Tensor:
        """Return the labels of a layer's units in order, `(units,)`."""
        first = record.raw if kind == "raw" else record.normed
        labels = [self.table.intern(frozenset((first + i,))) for i in range(record.units)]
        return torch.tensor(labels, dtype=torch.int32)

    # -------------------------------------------------------------- uses of a weight
    def feed(self, record: LayerRecord, labels: Tensor, features: Tensor | None = None) -> None:
        """Note labels of the inputs that a use of the weight reads: `(features,)`, or those numbered `features`."""
        if features is not None:
            spread = torch.full((record.kind.inputs(record.module),), ZERO, dtype=torch.int32)
            spread[features] = labels
            labels = spread
        record.inputs = labels.clone() if record.inputs is None else self.table.either(record.inputs, labels)
        if record.name not in self.order:
            self.order.append(record.name)

    def mix(self, record: LayerRecord) -> None:
        """Note a use that mixes rows or columns of the weight."""
        record.whole = True
        self.feed(record, torch.full((record.kind.inputs(record.module),), LIVE, dtype=torch.int32))

    # -------------------------------------------------------------- outputs
    def produced(self, record: LayerRecord, output: Tensor) -> None:
        """Label the output of a layer that ran as a module."""
        record.called = True
        axis = record.kind.unit_axis
        if output.dim() < -axis or output.shape[axis] != record.units:
            return
        self.store.put(output, _along(self.atoms(record, "raw"), output, axis))
        self._raw[storage_key(output)] = (StorageWeakRef(output.untyped_storage()), record.name)
        self._watch(output, record, "raw")

    def normed(self, name: str, x: Any) -> LayerRecord | None:
        """Return the layer whose units, all of them and in order, are the channels of a norm's input; note both."""
        entry = self._raw.get(storage_key(x)) if isinstance(x, Tensor) else None
        if entry is None or x.dim() < 2:
            return None
        record = self.records[entry[1]]
        labels = self.store.get(x)
        if labels is None or x.shape[1] != record.units:
            return None
        if not torch.equal(labels, _along(self.atoms(record, "raw"), x, 1 - x.dim()).expand(x.shape)):
            return None
        record.norms += [name] if name not in record.norms else []
        self.norm_feeds.setdefault(name, set()).add(record.name)
        return record

    def norm_produced(self, record: LayerRecord, output: Tensor) -> None:
        """Label the output of a norm behind a layer."""
        self.store.put(output, _along(self.atoms(record, "normed"), output, 1 - output.dim()))
        self._watch(output, record, "normed")

    def _watch(self, output: Tensor, record: LayerRecord, kind: str) -> None:
        self._gated[storage_key(output)] = (StorageWeakRef(output.untyped_storage()), record.name, kind)

    # -------------------------------------------------------------- readers
    def read(self, name: str, args: tuple[Any, ...], tensor: Tensor, in_place: bool) -> None:
        """Note that operation `name` reads `tensor`."""
        key = storage_key(tensor)
        if key in self._raw:
            self.records[self._raw[key][1]].read_elsewhere = True
        if key in self._gated:
            _, layer, kind = self._gated[key]
            plain = name in ACTIVATIONS and args[0] is tensor and not any(isinstance(a, Tensor) for a in args[1:])
            self.records[layer].readers[kind].append(Activation(name, tuple(args[1:])) if plain else None)
            if in_place:
                del self._gated[key]

    def returned(self, output: Tensor) -> None:
        """Note that the model returns `output`."""
        self.read("return", (None,), output, in_place=False)

    def find_read_sites(self, module: str, output: Tensor) -> None:
        """Note that a module that is not the layer shows a layer's units, in order, along an axis of its output."""
        labels = self.store.get(output)
        if labels is None or labels.numel() == 0:
            return
        for axis in range(-output.dim(), 0):
            line = labels[tuple(slice(None) if d == axis else 0 for d in range(-output.dim(), 0))]
            owner = self._owner_of(int(line[0]), len(line))
            if owner is not None and bool((labels == _along(self.atoms(owner, "raw"), output, axis)).all()):
                owner.read_site.setdefault(module, axis)

    def _owner_of(self, label: int, units: int) -> LayerRecord | None:
        """Return the layer with so many units whose unit 0 has this label."""
        atoms = self.table.atoms(label)
        if len(atoms) != 1:
            return None
        (atom,) = atoms
        return next((r for r in self.records.values() if r.raw == atom and r.units == units and r.hosts), None)


def _along(labels: Tensor, output: Tensor, axis: int) -> Tensor:
    shape = [1] * output.dim()
    shape[axis] = labels.numel()
    return labels.view(shape)
