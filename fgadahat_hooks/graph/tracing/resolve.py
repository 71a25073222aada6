"""From what a traced forward showed to the unit graph: gate positions first, then who feeds whom."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from fgadahat_hooks.graph.tracing.geometry import along, equal
from fgadahat_hooks.graph.tracing.recorder import LayerRecord, Recorder
from fgadahat_hooks.graph.tracing.units import KnownAtoms
from fgadahat_hooks.graph.unit_graph import InputMap, Position, UnitGraph, UnitLayer


def find_heads(recorder: Recorder, outputs: Sequence[Tensor]) -> list[str]:
    """Return the layers whose units, in order, are the features of a tensor that the model returns."""
    heads: list[str] = []
    for tensor in outputs:
        labels = recorder.store.get(tensor)
        for record in recorder.records.values():
            found = labels is not None and record.name not in heads and _is_output(recorder, record, tensor, labels)
            if found and record.kind.inputs(record.module):  # a table of words is no head
                heads.append(record.name)
    return heads


def _is_output(recorder: Recorder, record: LayerRecord, tensor: Tensor, labels: Tensor) -> bool:
    atoms = recorder.atoms(record, "raw")
    axes = {-1, 1 - tensor.dim()} if tensor.dim() > 1 else {-1} if tensor.dim() else set()
    return any(labels.shape[axis] == len(atoms) and equal(labels, along(atoms, tensor, axis)) for axis in axes)


def resolve(recorder: Recorder, gated: Sequence[str], heads: Sequence[str], *, after_norm: bool) -> UnitGraph:
    """Build the graph.

    Args:
        recorder: What the forward showed.
        gated: Names of the layers that get gates.
        heads: Names of the output layers.
        after_norm: Whether a gate may act behind a BatchNorm.
    """
    order = [n for n in recorder.order if n in set(gated)] + [n for n in gated if n not in recorder.order]
    layers: dict[str, UnitLayer] = {}
    offset = 0
    for name in order:
        layers[name] = _unit_layer(recorder, recorder.records[name], offset, after_norm)
        offset += layers[name].units
    zeroed = zeroed_atoms(recorder, layers)
    regates = find_regates(recorder, layers, zeroed) if after_norm else {}
    inputs = {n: input_map(recorder, recorder.records[n], zeroed) for n in recorder.order}
    return UnitGraph(layers, inputs, tuple(heads), regates)


def gate_position(recorder: Recorder, record: LayerRecord, after_norm: bool) -> tuple[Position, tuple[str, ...]]:
    """Return where a layer's gate can act, and the modules at which."""
    if record.hosts:
        hosts = [*record.hosts, record.name] if record.called else record.hosts
        return "weight", tuple(dict.fromkeys(hosts))
    alone = all(recorder.norm_feeds[n] == {record.name} for n in record.norms)
    if after_norm and record.norms and not record.read_elsewhere and alone:
        return "after_norm", tuple(record.norms)
    return "output", (record.name,)


def _unit_layer(recorder: Recorder, record: LayerRecord, offset: int, after_norm: bool) -> UnitLayer:
    position, sites = gate_position(recorder, record, after_norm)
    readers = record.readers["normed" if position == "after_norm" else "raw"]
    activation = readers[0] if len(readers) == 1 else None
    read: str | None = sites[0]
    axis = record.norms[sites[0]] if position == "after_norm" else record.kind.unit_axis
    if position == "weight":
        activation = None
        read, axis = next(iter(record.read_site.items()), (None, axis))
    return UnitLayer(record.name, record.units, offset, position, sites, read, axis, activation, record.whole)


def zeroed_atoms(recorder: Recorder, layers: dict[str, UnitLayer]) -> KnownAtoms:
    """Return the atoms that the layers' gates make zero; all others are live."""
    known = KnownAtoms(recorder.table)
    for name, layer in layers.items():
        record = recorder.records[name]
        known.add_layer(record.normed if layer.position == "after_norm" else record.raw, layer.offset, layer.units)
    return known


def input_map(recorder: Recorder, record: LayerRecord, zeroed: KnownAtoms) -> InputMap:
    """Return which units feed each input of a layer."""
    if record.inputs is None or record.whole:
        return InputMap.all_live(record.kind.inputs(record.module))
    return zeroed.map(record.inputs)


# ------------------------------------------------------------------ norms that are gated again
def find_regates(recorder: Recorder, layers: dict[str, UnitLayer], zeroed: KnownAtoms) -> dict[str, InputMap]:
    """Return the norms to gate again, and add the atoms that this makes zero to `zeroed`."""
    regates = {}
    makers = KnownAtoms(recorder.table)  # also what no gate makes zero: a mask needs no zero
    for name, layer in layers.items():
        record = recorder.records[name]
        makers.add_layer(record.raw, layer.offset, layer.units)
        makers.add_layer(record.normed, layer.offset, layer.units)
        alone = [n for n in record.norms if recorder.norm_feeds[n] == {name} and n not in recorder.regates.refused]
        for norm in alone if layer.position != "after_norm" else ():
            zeroed.add_layer(record.normed, layer.offset, layer.units)
            regates[norm] = makers.map(recorder.atoms(record, "normed"))
    for norm, read, atoms in recorder.regates.found():
        labels = torch.tensor(read, dtype=torch.int32, device="cpu")
        channels = makers.map(labels, zero_is_live=True)
        if recorder.norm_feeds.get(norm, {""}) == {""} and channels.has_predecessor:
            zeroed.add_channels(atoms, labels, makers)
            makers.add_channels(atoms, labels, makers)
            regates[norm] = channels
    return regates
