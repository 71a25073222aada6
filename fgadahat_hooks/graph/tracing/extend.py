"""A unit graph and a further traced forward: a graph that holds for both.

The gates stay where they are. A label may promise less than is true, never more, so the union of two forwards is always
safe, and what only one of them shows counts.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from fgadahat_hooks.graph.tracing.atom_units import AtomUnits
from fgadahat_hooks.graph.tracing.build_graph import find_regates, gate_position, input_map, zeroed_atoms
from fgadahat_hooks.graph.tracing.input_maps import equal_input_maps, merge_input_maps
from fgadahat_hooks.graph.tracing.recorder import Recorder
from fgadahat_hooks.graph.unit_graph import InputMap, UnitGraph, UnitLayer


def extend_graph(graph: UnitGraph, recorder: Recorder) -> UnitGraph:
    """Return a graph that holds for the forwards it was made from, and for the one that was recorded."""
    used = {n: layer for n, layer in graph.layers.items() if n in recorder.order or recorder.records[n].called}
    gated = {n: layer for n, layer in used.items() if _gate_acts(layer, recorder)}
    zeroed = _zeroed_atoms(graph, recorder, gated)
    inputs = {name: input_map(recorder.records[name], zeroed) for name in recorder.order}
    return merge_into_graph(graph, inputs, {n for n in used if n not in gated or recorder.records[n].mixed_weight})


def _gate_acts(layer: UnitLayer, recorder: Recorder) -> bool:
    """Return whether the layer's gate, where it is, makes its units zero for all that read them in this forward."""
    record = recorder.records[layer.name]
    if not record.reached:
        return False
    position, sites = gate_position(recorder, record, after_norm=True)
    if layer.position == "output":
        return position != "weight"
    return position == layer.position and set(sites) <= set(layer.sites)


def _zeroed_atoms(graph: UnitGraph, recorder: Recorder, gated: Mapping[str, UnitLayer]) -> AtomUnits:
    """Return the atoms that the gates make zero, those of the graph's regated norms included.

    Norms that this forward could gate again, but behind which no gate acts or one of other units, are refused until
    none is left.
    """
    zeroed = zeroed_atoms(recorder, gated)
    while graph.regates:
        regates = find_regates(recorder, gated, zeroed)
        foreign = [norm for norm, channels in regates.items() if not _has_regate(graph, norm, channels)]
        if not foreign:
            break
        for norm in foreign:
            recorder.regated_norms.refuse(norm)
        zeroed = zeroed_atoms(recorder, gated)
    return zeroed


def _has_regate(graph: UnitGraph, norm: str, channels: InputMap) -> bool:
    """Return whether the graph gates the norm again, by the same units."""
    return norm in graph.regates and equal_input_maps(channels, graph.regates[norm])


def merge_into_graph(graph: UnitGraph, inputs: Mapping[str, InputMap], mixed: Iterable[str]) -> UnitGraph:
    """Return a graph that holds for further forwards too.

    Args:
        graph: The graph so far.
        inputs: What feeds the inputs of layers in the further forwards.
        mixed: Names of the layers of which every entry counts as used by every unit.
    """
    mixed = set(mixed)
    layers = {n: replace(layer, mixed_weight=layer.mixed_weight or n in mixed) for n, layer in graph.layers.items()}
    merged = dict(graph.inputs)
    for name, found in inputs.items():
        merged[name] = merge_input_maps(merged[name], found) if name in merged else found
    for name in mixed & merged.keys():
        merged[name] = InputMap.all_live(merged[name].features)
    return replace(graph, layers=layers, inputs=merged)


def assume_live(graph: UnitGraph, modules: set[str]) -> UnitGraph:
    """Return a graph that promises nothing of modules that ran on an unknown execution path.

    Layers whose weights other modules use are always included, since no module would show that they ran.
    """
    mixed = [n for n, u in graph.layers.items() if n in modules or modules & set(u.sites) or u.position == "weight"]
    live = {name: InputMap.all_live(inputs.features) for name, inputs in graph.inputs.items() if name in modules}
    return merge_into_graph(graph, live, mixed)
