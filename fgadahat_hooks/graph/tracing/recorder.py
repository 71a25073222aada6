"""What the traced forward does with each layer: what feeds it, what reads it, and where its gate can act."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import accumulate
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef

from fgadahat_hooks.graph.tracing.execution_paths import PathRecorder
from fgadahat_hooks.graph.tracing.label_store import LabelStore
from fgadahat_hooks.graph.tracing.labels import LIVE, ZERO, LabelTable, constant
from fgadahat_hooks.graph.tracing.layer_record import LayerRecord
from fgadahat_hooks.graph.tracing.operation import Operation
from fgadahat_hooks.graph.tracing.regated_norms import RegatedNorms
from fgadahat_hooks.graph.tracing.storage import equal, expand_along, is_plain, storage_key
from fgadahat_hooks.graph.unit_graph import Activation
from fgadahat_hooks.layers import LayerType

ACTIVATIONS = frozenset("relu gelu silu hardswish leaky_relu elu selu celu tanh hardtanh mish".split())


class Recorder:
    """The record of one traced forward.

    Attributes:
        table: Combines labels.
        store: Labels of tensors.
        paths: Which module ran after which.
        records: All layers, by name.
        order: Names of the layers whose weights were used, in order of execution.
        norm_inputs: For each BatchNorm, the layers whose units it reads; an empty name for anything else.
        weight_owners: Names of layers by the storage of their weight.
        bias_owners: The same of biases, of targets only.
        regated_norms: Norms over the channels of several layers.
    """

    def __init__(
        self,
        layers: Mapping[str, tuple[nn.Module, LayerType]],
        targets: set[str],
        norms: Mapping[str, int] = MappingProxyType({}),
    ) -> None:
        """Assign atoms to the units of all layers and to the channels of norms.

        Args:
            layers: All layers of a known type in the model, gated or not.
            targets: Names of the layers that may get a gate; the others become live in the end, and are recorded only
                so that the output layer can be found.
            norms: Modules behind which the units of several layers may be gated again, with their numbers of channels.
        """
        units = sum(kind.units(module) for module, kind in layers.values())
        self.table = LabelTable(2 * units + sum(norms.values()))
        self.store = LabelStore()
        self.paths = PathRecorder()
        self.records: dict[str, LayerRecord] = {}
        self.order: list[str] = []
        self.norm_inputs: dict[str, set[str]] = {}
        self.weight_owners: dict[int, str] = {}
        self.bias_owners: dict[int, str] = {}
        self._atoms = 0
        self._labels: dict[tuple[str, str], Tensor] = {}
        self._by_first_atom: dict[int, LayerRecord] = {}
        self._raw_outputs: dict[int, tuple[StorageWeakRef, str]] = {}
        self._watched: dict[int, tuple[StorageWeakRef, str, str]] = {}
        for name, (module, kind) in layers.items():
            self._add(name, module, kind, name in targets)
        ends = [2 * units + end for end in accumulate(norms.values())]
        atoms = {name: range(end - norms[name], end) for name, end in zip(norms, ends, strict=True)}
        self.regated_norms = RegatedNorms(self.table, atoms)

    def _add(self, name: str, module: nn.Module, kind: LayerType, is_target: bool) -> None:
        record = self.records[name] = LayerRecord(name, module, kind, self._atoms, is_target)
        self._by_first_atom[record.raw_atom] = record
        self._atoms += 2 * record.units
        if not is_target:
            self.table.add_ungated(range(record.raw_atom, self._atoms))
        self.weight_owners[storage_key(record.weight)] = name
        bias = module._parameters.get("bias")
        if bias is not None and is_target:
            self.bias_owners[storage_key(bias)] = name
            self.store.put(bias, self.atoms(record, "raw"))
            self.store.mark_permanent(bias)

    def atoms(self, record: LayerRecord, kind: str) -> Tensor:
        """Return the labels of a layer's units in order, `(units,)`; `kind` is `raw` or `normed`."""
        key = (record.name, kind)
        if key not in self._labels:
            first = record.raw_atom if kind == "raw" else record.normed_atom
            first = self.table.single(first)
            self._labels[key] = torch.arange(first, first + record.units, dtype=torch.int32, device="cpu")
        return self._labels[key]

    def clear_readers(self) -> None:
        """Forget the readers of outputs, before a second forward records them anew."""
        for record in self.records.values():
            record.readers = {"raw": [], "normed": []}

    # -------------------------------------------------------------- uses of a weight
    def record_inputs(self, record: LayerRecord, labels: Tensor, features: Tensor | None = None) -> None:
        """Join the labels of a layer's inputs with those that one use of the weight reads.

        Args:
            record: The layer.
            labels: One label a feature read.
            features: Numbers of the features read; None for all of them.
        """
        if features is not None:
            all_labels = torch.full((record.kind.inputs(record.module),), ZERO, dtype=torch.int32, device="cpu")
            all_labels[features] = labels
            labels = all_labels
        record.inputs = labels.clone() if record.inputs is None else self.table.join_tensors(record.inputs, labels)
        if record.name not in self.order:
            self.order.append(record.name)

    def record_mixed_weight(self, record: LayerRecord) -> None:
        """Record a use that mixes rows or columns of the weight."""
        record.mixed_weight = True
        self.record_inputs(record, constant(LIVE, (record.kind.inputs(record.module),)))

    def record_functional_use(self, record: LayerRecord, module: str) -> None:
        """Record that a module uses a layer's weight or bias without calling the layer."""
        if module not in record.functional_users:
            record.functional_users.append(module)

    # -------------------------------------------------------------- outputs
    def record_output(self, record: LayerRecord, output: Any) -> None:
        """Label the output of a layer that ran as a module."""
        record.called = True
        axis = record.kind.unit_axis
        if record.inputs is None:  # it ran without a visible use of its weight: replaced, compiled or hidden
            self.record_mixed_weight(record)
        if not isinstance(output, Tensor) or output.dim() < -axis or output.shape[axis] != record.units:
            shape = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
            record.unsupported_output = f"'{record.name}' puts out {shape} with no axis {axis} of {record.units} units"
        elif is_plain(output):
            self.store.put(output, expand_along(self.atoms(record, "raw"), output, axis))
            self._raw_outputs[storage_key(output)] = (StorageWeakRef(output.untyped_storage()), record.name)
            self._watch(output, record, "raw")

    # -------------------------------------------------------------- norms behind a layer
    def record_batch_norm(self, norm: str, x: Tensor, output: Tensor) -> bool:
        """Record a BatchNorm on `x`; label its output by the units that its channels come from.

        If these are all units of one layer, in order, the layer's gate may move behind the norm.

        Returns:
            Whether the output has been labelled.
        """
        record = self._units_in_order(x)
        self.norm_inputs.setdefault(norm, set()).add("" if record is None else record.name)
        if record is not None:
            record.norms[norm] = 1 - x.dim()
            self.store.put(output, expand_along(self.atoms(record, "normed"), output, 1 - output.dim()))
            return True
        return self.record_regated_norm(norm, x, output, 1)

    def record_regated_norm(self, norm: str, x: Tensor, output: Tensor, axis: int) -> bool:
        """Record a norm over several layers' channels along an axis; return whether its output has been labelled."""
        labels = self.store.get(x)
        labels = self.regated_norms.record(norm, constant(LIVE, x.shape) if labels is None else labels, axis)
        if labels is None or output.shape != x.shape:
            return False
        self.record_read(x, None)
        self.store.put(output, labels)
        return True

    def _units_in_order(self, x: Tensor) -> LayerRecord | None:
        """Return the layer whose raw output `x` is, if its channels are the units in order."""
        entry = self._raw_outputs.get(storage_key(x))
        labels = self.store.get(x)
        if entry is None or labels is None or x.dim() < 2:
            return None
        record = self.records[entry[1]]
        if x.shape[1] != record.units or not equal(labels, expand_along(self.atoms(record, "raw"), x, 1 - x.dim())):
            return None
        return record

    def record_norm_output(self, norm: str, output: Any) -> None:
        """Watch what reads the output of a norm that shows a layer's units."""
        if not isinstance(output, Tensor) or output.dim() < 2:
            return
        labels = self.store.get(output)
        if labels is None:
            return
        for record in [self.records[n] for n in self.norm_inputs.get(norm, ()) if n]:
            units = self.atoms(record, "normed")
            if output.shape[1] == record.units and equal(labels, expand_along(units, output, 1 - output.dim())):
                self._watch(output, record, "normed")

    def _watch(self, output: Tensor, record: LayerRecord, kind: str) -> None:
        self._watched[storage_key(output)] = (StorageWeakRef(output.untyped_storage()), record.name, kind)

    # -------------------------------------------------------------- readers
    def record_read(self, tensor: Tensor, op: Operation | None) -> None:
        """Record that an operation reads `tensor`; None if the model returns it or the reader is unknown."""
        key = storage_key(tensor)
        if key in self._raw_outputs:
            self.records[self._raw_outputs[key][1]].raw_output_read = True
        if key in self._watched:
            _, layer, kind = self._watched[key]
            self.records[layer].readers[kind].append(None if op is None else _activation(op, tensor))
            if op is not None and op.mutable:
                del self._watched[key]

    def find_output_axis(self, module: str, output: Tensor) -> None:
        """Record along which axis of its output, if any, a module shows the units of a functionally used layer."""
        labels = self.store.get(output)
        if labels is None or labels.numel() == 0:
            return
        for axis in range(-output.dim(), 0):
            along_axis = labels[tuple(slice(None) if d == axis else 0 for d in range(-output.dim(), 0))]
            owner = self._owner_of(int(along_axis[0]), len(along_axis))
            if owner is not None and equal(labels, expand_along(self.atoms(owner, "raw"), output, axis)):
                owner.output_axes.setdefault(module, axis)

    def _owner_of(self, label: int, units: int) -> LayerRecord | None:
        """Return the layer of this many units whose first unit has this label, if its weight is used functionally."""
        atoms = self.table.atoms(label)
        record = self._by_first_atom.get(next(iter(atoms))) if len(atoms) == 1 else None
        return record if record is not None and record.units == units and record.functional_users else None


def _activation(op: Operation, tensor: Tensor) -> Activation | None:
    """Return the function if the operation is element-wise, of one tensor and numbers; else None."""
    others = [*op.args[1:], *op.kwargs.values()]
    if op.name not in ACTIVATIONS or op.args[0] is not tensor or any(isinstance(a, Tensor) for a in others):
        return None
    return Activation(op.name, tuple(op.args[1:]), tuple(op.kwargs.items()))
