"""What the traced forward does with each layer: who feeds it, who reads it, where its gate can act."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from itertools import accumulate
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef

from fgadahat_hooks.graph.tracing.execution_paths import PathRecorder
from fgadahat_hooks.graph.tracing.geometry import along, equal, is_plain, storage_key
from fgadahat_hooks.graph.tracing.labels import LIVE, ZERO, LabelTable, constant
from fgadahat_hooks.graph.tracing.operation import Operation
from fgadahat_hooks.graph.tracing.regating import Regates
from fgadahat_hooks.graph.tracing.store import LabelStore
from fgadahat_hooks.graph.unit_graph import Activation
from fgadahat_hooks.layers import LayerType

ACTIVATIONS = frozenset("relu gelu silu hardswish leaky_relu elu selu celu tanh hardtanh mish".split())


@dataclass
class LayerRecord:
    """Everything the forward showed of one layer of a known type.

    Each unit has two atoms, `raw + i` for the layer's own output and `normed + i` for the output of a norm behind it;
    which of them the gate makes zero is known only at the end.
    """

    name: str
    module: nn.Module
    kind: LayerType
    raw: int
    is_target: bool
    inputs: Tensor | None = None
    hosts: list[str] = field(default_factory=list)
    called: bool = False
    whole: bool = False
    odd_output: str = ""
    norms: dict[str, int] = field(default_factory=dict)
    read_elsewhere: bool = False
    readers: dict[str, list[Activation | None]] = field(default_factory=lambda: {"raw": [], "normed": []})
    read_site: dict[str, int] = field(default_factory=dict)

    @property
    def weight(self) -> Tensor:
        """The layer's weight."""
        return self.module.get_parameter("weight")

    @cached_property
    def units(self) -> int:
        """Number of units."""
        return self.kind.units(self.module)

    @property
    def normed(self) -> int:
        """Atom of the first unit behind a norm."""
        return self.raw + self.units

    @property
    def reached(self) -> bool:
        """Whether a gate on the layer would act in the forward."""
        return (self.called or bool(self.hosts)) and not self.odd_output


class Recorder:
    """Bookkeeping of one traced forward."""

    def __init__(
        self,
        layers: Mapping[str, tuple[nn.Module, LayerType]],
        targets: set[str],
        norms: Mapping[str, int] = MappingProxyType({}),
    ) -> None:
        """Give every layer its atoms.

        Args:
            layers: All layers of a known type of the model, gated or not.
            targets: Names of those that a gate may get; the others are live in the end, and tracked only so that
                the output layer can be found.
            norms: Numbers of channels of the modules behind which several layers' units may be gated again.
        """
        units = sum(kind.units(module) for module, kind in layers.values())
        self.table = LabelTable(2 * units + sum(norms.values()))
        self.store = LabelStore()
        self.paths = PathRecorder()
        self.records: dict[str, LayerRecord] = {}
        self.order: list[str] = []
        self.norm_feeds: dict[str, set[str]] = {}
        self.owners: dict[int, str] = {}
        self.biases: dict[int, str] = {}
        self._atoms = 0
        self._labels: dict[tuple[str, str], Tensor] = {}
        self._first_atom: dict[int, LayerRecord] = {}
        self._raw: dict[int, tuple[StorageWeakRef, str]] = {}
        self._gated: dict[int, tuple[StorageWeakRef, str, str]] = {}
        for name, (module, kind) in layers.items():
            self._add(name, module, kind, name in targets)
        ends = [2 * units + end for end in accumulate(norms.values())]
        atoms = {name: range(end - norms[name], end) for name, end in zip(norms, ends, strict=True)}
        self.regates = Regates(self.table, atoms)

    def _add(self, name: str, module: nn.Module, kind: LayerType, is_target: bool) -> None:
        record = self.records[name] = LayerRecord(name, module, kind, self._atoms, is_target)
        self._first_atom[record.raw] = record
        self._atoms += 2 * record.units
        if not is_target:
            self.table.add_probes(range(record.raw, self._atoms))
        self.owners[storage_key(record.weight)] = name
        bias = module._parameters.get("bias")
        if bias is not None and is_target:
            self.biases[storage_key(bias)] = name
            self.store.put(bias, self.atoms(record, "raw"))
            self.store.keep(bias)

    def atoms(self, record: LayerRecord, kind: str) -> Tensor:
        """Return the labels of a layer's units in order, `(units,)`."""
        key = (record.name, kind)
        if key not in self._labels:
            first = record.raw if kind == "raw" else record.normed
            first = self.table.single(first)
            self._labels[key] = torch.arange(first, first + record.units, dtype=torch.int32, device="cpu")
        return self._labels[key]

    def begin_again(self) -> None:
        """Prepare for a second forward, of which only the readers count."""
        for record in self.records.values():
            record.readers = {"raw": [], "normed": []}

    # -------------------------------------------------------------- uses of a weight
    def feed(self, record: LayerRecord, labels: Tensor, features: Tensor | None = None) -> None:
        """Note labels of the inputs that a use of the weight reads: `(features,)`, or those numbered `features`."""
        if features is not None:
            spread = torch.full((record.kind.inputs(record.module),), ZERO, dtype=torch.int32, device="cpu")
            spread[features] = labels
            labels = spread
        record.inputs = labels.clone() if record.inputs is None else self.table.either(record.inputs, labels)
        if record.name not in self.order:
            self.order.append(record.name)

    def mix(self, record: LayerRecord) -> None:
        """Note a use that mixes rows or columns of the weight."""
        record.whole = True
        self.feed(record, constant(LIVE, (record.kind.inputs(record.module),)))

    def hosted(self, record: LayerRecord, host: str) -> None:
        """Note that a module uses a layer's weight or bias without calling the layer."""
        if host not in record.hosts:
            record.hosts.append(host)

    # -------------------------------------------------------------- outputs
    def produced(self, record: LayerRecord, output: Any) -> None:
        """Label the output of a layer that ran as a module."""
        record.called = True
        axis = record.kind.unit_axis
        if record.inputs is None:  # it ran, and its weight was not seen: replaced, compiled or hidden
            self.mix(record)
        if not isinstance(output, Tensor) or output.dim() < -axis or output.shape[axis] != record.units:
            shape = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
            record.odd_output = f"'{record.name}' puts out {shape} with no axis {axis} of {record.units} units"
        elif is_plain(output):
            self.store.put(output, along(self.atoms(record, "raw"), output, axis))
            self._raw[storage_key(output)] = (StorageWeakRef(output.untyped_storage()), record.name)
            self._watch(output, record, "raw")

    # -------------------------------------------------------------- norms behind a layer
    def normalised(self, norm: str, x: Tensor, output: Tensor) -> bool:
        """Note a BatchNorm on `x`; label its output by the units that its channels come from.

        Where they are one layer's units, all of them and in order, the layer's gate may move behind the norm.
        """
        record = self._units_in_order(x)
        self.norm_feeds.setdefault(norm, set()).add("" if record is None else record.name)
        if record is not None:
            record.norms[norm] = 1 - x.dim()
            self.store.put(output, along(self.atoms(record, "normed"), output, 1 - output.dim()))
            return True
        return self.gated_again(norm, x, output, 1)

    def gated_again(self, norm: str, x: Tensor, output: Tensor, axis: int) -> bool:
        """Note a norm over several layers' channels along an axis; return whether its output has been labelled."""
        labels = self.store.get(x)
        labels = self.regates.see(norm, constant(LIVE, x.shape) if labels is None else labels, axis)
        if labels is None or output.shape != x.shape:
            return False
        self.read(x, None)
        self.store.put(output, labels)
        return True

    def _units_in_order(self, x: Tensor) -> LayerRecord | None:
        entry = self._raw.get(storage_key(x))
        labels = self.store.get(x)
        if entry is None or labels is None or x.dim() < 2:
            return None
        record = self.records[entry[1]]
        if x.shape[1] != record.units or not equal(labels, along(self.atoms(record, "raw"), x, 1 - x.dim())):
            return None
        return record

    def norm_returned(self, norm: str, output: Any) -> None:
        """Watch who reads the output of a norm that shows a layer's units."""
        if not isinstance(output, Tensor) or output.dim() < 2:
            return
        labels = self.store.get(output)
        feeds = [self.records[n] for n in self.norm_feeds.get(norm, ()) if n]
        for record in (r for r in feeds if labels is not None and output.shape[1] == r.units):
            if labels is not None and equal(labels, along(self.atoms(record, "normed"), output, 1 - output.dim())):
                self._watch(output, record, "normed")

    def _watch(self, output: Tensor, record: LayerRecord, kind: str) -> None:
        self._gated[storage_key(output)] = (StorageWeakRef(output.untyped_storage()), record.name, kind)

    # -------------------------------------------------------------- readers
    def read(self, tensor: Tensor, op: Operation | None) -> None:
        """Note that an operation reads `tensor`; None if the model returns it or nothing is known of the reader."""
        key = storage_key(tensor)
        if key in self._raw:
            self.records[self._raw[key][1]].read_elsewhere = True
        if key in self._gated:
            _, layer, kind = self._gated[key]
            self.records[layer].readers[kind].append(None if op is None else _activation(op, tensor))
            if op is not None and op.mutable:
                del self._gated[key]

    def find_read_sites(self, module: str, output: Tensor) -> None:
        """Note that a module that is not the layer shows a layer's units, in order, along an axis of its output."""
        labels = self.store.get(output)
        if labels is None or labels.numel() == 0:
            return
        for axis in range(-output.dim(), 0):
            line = labels[tuple(slice(None) if d == axis else 0 for d in range(-output.dim(), 0))]
            owner = self._owner_of(int(line[0]), len(line))
            if owner is not None and equal(labels, along(self.atoms(owner, "raw"), output, axis)):
                owner.read_site.setdefault(module, axis)

    def _owner_of(self, label: int, units: int) -> LayerRecord | None:
        """Return the layer with so many units whose unit 0 has this label, if its weight is used functionally."""
        atoms = self.table.atoms(label)
        record = self._first_atom.get(next(iter(atoms))) if len(atoms) == 1 else None
        return record if record is not None and record.units == units and record.hosts else None


def _activation(op: Operation, tensor: Tensor) -> Activation | None:
    """Return an element-wise function of one tensor and numbers; None for any other operation."""
    others = [*op.args[1:], *op.kwargs.values()]
    if op.name not in ACTIVATIONS or op.args[0] is not tensor or any(isinstance(a, Tensor) for a in others):
        return None
    return Activation(op.name, tuple(op.args[1:]), tuple(op.kwargs.items()))
