"""From the record of a traced forward to the unit graph: gate positions first, then which units feed which inputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from fgadahat_hooks.graph.tracing.atom_units import AtomUnits
from fgadahat_hooks.graph.tracing.layer_record import LayerRecord
from fgadahat_hooks.graph.tracing.recorder import Recorder
from fgadahat_hooks.graph.unit_graph import InputMap, Position, UnitGraph, UnitLayer


def build_unit_graph(recorder: Recorder, gated: Sequence[str], heads: Sequence[str], *, after_norm: bool) -> UnitGraph:
    """Build the graph, without execution paths.

    Args:
        recorder: The record of the forward.
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
    inputs = {n: input_map(recorder.records[n], zeroed) for n in dict.fromkeys([*recorder.order, *layers])}
    return UnitGraph(layers, inputs, tuple(heads), regates)


def gate_position(recorder: Recorder, record: LayerRecord, after_norm: bool) -> tuple[Position, tuple[str, ...]]:
    """Return where a layer's gate can act, and the names of the modules at which it does."""
    if record.functional_users:
        modules = [*record.functional_users, record.name] if record.called else record.functional_users
        return "weight", tuple(dict.fromkeys(modules))
    alone = all(recorder.norm_inputs[n] == {record.name} for n in record.norms)
    if after_norm and record.norms and not record.raw_output_read and alone:
        return "after_norm", tuple(record.norms)
    return "output", (record.name,)


def _unit_layer(recorder: Recorder, record: LayerRecord, offset: int, after_norm: bool) -> UnitLayer:
    position, sites = gate_position(recorder, record, after_norm)
    readers = record.readers["normed" if position == "after_norm" else "raw"]
    activation = readers[0] if len(readers) == 1 else None
    module: str | None = sites[0]
    axis = record.norms[sites[0]] if position == "after_norm" else record.kind.unit_axis
    if position == "weight":
        activation = None
        module, axis = next(iter(record.output_axes.items()), (None, axis))
    return UnitLayer(record.name, record.units, offset, position, sites, module, axis, activation, record.mixed_weight)


def zeroed_atoms(recorder: Recorder, layers: Mapping[str, UnitLayer]) -> AtomUnits:
    """Return the atoms that the layers' gates make zero; all others are live."""
    zeroed = AtomUnits(recorder.table)
    for name, layer in layers.items():
        record = recorder.records[name]
        atom = record.normed_atom if layer.position == "after_norm" else record.raw_atom
        zeroed.add_layer(atom, layer.offset, layer.units)
    return zeroed


def input_map(record: LayerRecord, zeroed: AtomUnits) -> InputMap:
    """Return which units feed each input of a layer."""
    if record.inputs is None or record.mixed_weight:
        return InputMap.all_live(record.kind.inputs(record.module))
    return zeroed.input_map(record.inputs)


# ------------------------------------------------------------------ norms that are gated again
def find_regates(recorder: Recorder, layers: Mapping[str, UnitLayer], zeroed: AtomUnits) -> dict[str, InputMap]:
    """Return the norms to gate again, with the units of each channel.

    Args:
        recorder: The record of the forward.
        layers: The gated layers.
        zeroed: The atoms that their gates make zero; gets those that the new gates make zero.
    """
    units = _all_units(recorder, layers)
    regates = {}
    for name, layer in layers.items():
        record = recorder.records[name]
        for norm in _own_norms(recorder, record) if layer.position != "after_norm" else ():
            zeroed.add_layer(record.normed_atom, layer.offset, layer.units)
            regates[norm] = units.input_map(recorder.atoms(record, "normed"))
    for norm, channel_labels, atoms in recorder.regated_norms.accepted():
        labels = torch.tensor(channel_labels, dtype=torch.int32, device="cpu")
        channels = units.input_map(labels, zero_is_live=True)
        if recorder.norm_inputs.get(norm, {""}) == {""} and channels.has_predecessor:
            zeroed.add_channels(atoms, labels, units)
            units.add_channels(atoms, labels, units)
            regates[norm] = channels
    return regates


def _all_units(recorder: Recorder, layers: Mapping[str, UnitLayer]) -> AtomUnits:
    """Return the units of all atoms of the layers, also of those that no gate makes zero: a mask needs no zero."""
    units = AtomUnits(recorder.table)
    for name, layer in layers.items():
        record = recorder.records[name]
        units.add_layer(record.raw_atom, layer.offset, layer.units)
        units.add_layer(record.normed_atom, layer.offset, layer.units)
    return units


def _own_norms(recorder: Recorder, record: LayerRecord) -> list[str]:
    """Return the BatchNorms that read the units of one layer alone and can be gated again."""
    refused = recorder.regated_norms.refused
    return [n for n in record.norms if recorder.norm_inputs[n] == {record.name} and n not in refused]
