"""From what a traced forward showed to the unit graph: gate positions first, then who feeds whom."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from fgadahat_hooks.graph import InputMap, Position, UnitGraph, UnitLayer
from fgadahat_hooks.tracing.geometry import along, equal
from fgadahat_hooks.tracing.labels import LIVE, ZERO
from fgadahat_hooks.tracing.recorder import LayerRecord, Recorder


def find_heads(recorder: Recorder, outputs: Sequence[Tensor]) -> list[str]:
    """Return the layers whose units, in order, are the features of a tensor that the model returns."""
    heads: list[str] = []
    for tensor in outputs:
        labels = recorder.store.get(tensor)
        for record in recorder.records.values():
            if labels is not None and record.name not in heads and _is_output(recorder, record, tensor, labels):
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
    units = _units_of_atoms(recorder, layers)
    inputs = {n: _input_map(recorder, recorder.records[n], units) for n in recorder.order}
    return UnitGraph(layers, inputs, tuple(heads))


def _position(recorder: Recorder, record: LayerRecord, after_norm: bool) -> tuple[Position, tuple[str, ...]]:
    if record.hosts:
        hosts = [*record.hosts, record.name] if record.called else record.hosts
        return "weight", tuple(dict.fromkeys(hosts))
    alone = all(recorder.norm_feeds[n] == {record.name} for n in record.norms)
    if after_norm and record.norms and not record.read_elsewhere and alone:
        return "after_norm", tuple(record.norms)
    return "output", (record.name,)


def _unit_layer(recorder: Recorder, record: LayerRecord, offset: int, after_norm: bool) -> UnitLayer:
    position, sites = _position(recorder, record, after_norm)
    readers = record.readers["normed" if position == "after_norm" else "raw"]
    activation = readers[0] if len(readers) == 1 else None
    read: str | None = sites[0]
    axis = record.norms[sites[0]] if position == "after_norm" else record.kind.unit_axis
    if position == "weight":
        activation = None
        read, axis = next(iter(record.read_site.items()), (None, axis))
    return UnitLayer(record.name, record.units, offset, position, sites, read, axis, activation, record.whole)


def _units_of_atoms(recorder: Recorder, layers: dict[str, UnitLayer]) -> dict[int, int]:
    """Map the atoms that a gate makes zero to model-wide unit numbers; an atom left out is live."""
    units: dict[int, int] = {}
    for name, layer in layers.items():
        record = recorder.records[name]
        first = record.normed if layer.position == "after_norm" else record.raw
        units.update({first + i: layer.offset + i for i in range(layer.units)})
    return units


def _input_map(recorder: Recorder, record: LayerRecord, units: dict[int, int]) -> InputMap:
    labels = record.inputs
    if labels is None or record.whole:
        return InputMap.all_live(record.kind.inputs(record.module))
    places = labels.tolist()
    members: dict[int, list[int] | None] = {ZERO: [], LIVE: None}
    for label in set(places) - {ZERO, LIVE}:
        atoms = recorder.table.atoms(label)
        members[label] = sorted(units[a] for a in atoms) if atoms <= units.keys() else None
    rows = [members[label] for label in places]
    live = torch.tensor([row is None for row in rows], dtype=torch.bool, device="cpu")
    counts = torch.tensor([len(row or ()) for row in rows], dtype=torch.long, device="cpu")
    flat = torch.tensor([unit for row in rows for unit in row or ()], dtype=torch.long, device="cpu")
    feature = torch.repeat_interleave(torch.arange(len(rows), device="cpu"), counts)
    return InputMap(len(rows), live, feature, flat)
