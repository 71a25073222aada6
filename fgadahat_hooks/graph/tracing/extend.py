"""A unit graph and a further traced forward: what holds in both.

Gates stay where they are. A label may promise less than is true, never more: so the union of two forwards is always
safe, and what only one of them shows counts.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import torch

from fgadahat_hooks.graph.tracing.labels import tidied
from fgadahat_hooks.graph.tracing.recorder import Recorder
from fgadahat_hooks.graph.tracing.resolve import find_regates, gate_position, input_map, zeroed_atoms
from fgadahat_hooks.graph.unit_graph import InputMap, UnitGraph, UnitLayer

Row = list[frozenset[int]] | None
"""What must be on for one input to be non-zero: a unit of each set; None if it is live."""


def extended(graph: UnitGraph, recorder: Recorder) -> UnitGraph:
    """Return a graph that is true of the forwards it was made from, and of the one that the recorder has seen."""
    ran = [name for name in graph.layers if name in recorder.order or recorder.records[name].called]
    bare = {name for name in ran if not _acts(graph.layers[name], recorder)}
    sound = {name: graph.layers[name] for name in ran if name not in bare}
    zeroed = zeroed_atoms(recorder, sound)
    while graph.regates:
        regates = find_regates(recorder, sound, zeroed)
        foreign = [n for n, found in regates.items() if n not in graph.regates or not same(found, graph.regates[n])]
        if not foreign:
            break
        for norm in foreign:  # no gate acts behind it, or one of other units
            recorder.regates.refuse(norm)
        zeroed = zeroed_atoms(recorder, sound)
    more = {name: input_map(recorder, recorder.records[name], zeroed) for name in recorder.order}
    return united(graph, more, {name for name in ran if name in bare or recorder.records[name].whole})


def _acts(layer: UnitLayer, recorder: Recorder) -> bool:
    """Return whether the layer's gate, where it is, makes its units zero for all that read them in this forward."""
    record = recorder.records[layer.name]
    if not record.reached:
        return False
    position, sites = gate_position(recorder, record, after_norm=True)
    if layer.position == "output":
        return position != "weight"
    return position == layer.position and set(sites) <= set(layer.sites)


def united(graph: UnitGraph, more: dict[str, InputMap], whole: Iterable[str]) -> UnitGraph:
    """Return a graph with more knowledge of inputs, and layers of which every entry counts as used by every unit."""
    mixed = set(whole)
    layers = {n: replace(layer, whole=layer.whole or n in mixed) for n, layer in graph.layers.items()}
    inputs = dict(graph.inputs)
    for name, found in more.items():
        inputs[name] = either(inputs[name], found) if name in inputs else found
    for name in mixed & inputs.keys():
        inputs[name] = InputMap.all_live(inputs[name].features)
    return replace(graph, layers=layers, inputs=inputs)


def distrusted(graph: UnitGraph, ran: set[str]) -> UnitGraph:
    """Return a graph that promises nothing of modules that ran in an unknown way.

    Layers whose weight others use have no module that would show it, so they are always among them.
    """
    whole = [n for n, u in graph.layers.items() if n in ran or ran & set(u.sites) or u.position == "weight"]
    live = {name: InputMap.all_live(inputs.features) for name, inputs in graph.inputs.items() if name in ran}
    return united(graph, live, whole)


# ------------------------------------------------------------------ inputs
def either(a: InputMap, b: InputMap) -> InputMap:
    """Return the map of inputs that are non-zero if they are so by one map or by the other."""
    if same(a, b):
        return a
    rows = [_either(one, other) for one, other in zip(_rows(a), _rows(b), strict=True)]
    live = torch.tensor([row is None for row in rows], dtype=torch.bool, device="cpu")
    triples = [(f, unit, g) for f, row in enumerate(rows) for g, one in enumerate(row or ()) for unit in sorted(one)]
    feature, unit, group = torch.tensor(triples, dtype=torch.long, device="cpu").view(-1, 3).unbind(1)
    return InputMap(len(rows), live, feature, unit, group if bool(group.any()) else None)


def _either(a: Row, b: Row) -> Row:
    if a is None or b is None:
        return None
    if not a or not b or a == b:  # without any set it is always zero
        return a or b
    both = tidied((one | other for one in a for other in b), lambda units: (len(units), sorted(units)))
    return sorted(both, key=sorted) or None


def _rows(inputs: InputMap) -> list[Row]:
    """Return the sets of units of each input."""
    sets: list[dict[int, set[int]]] = [{} for _ in range(inputs.features)]
    groups = torch.zeros_like(inputs.unit) if inputs.group is None else inputs.group
    for feature, unit, group in zip(inputs.feature.tolist(), inputs.unit.tolist(), groups.tolist(), strict=True):
        sets[feature].setdefault(group, set()).add(unit)
    live = inputs.live.tolist()
    return [None if live[f] else sorted(map(frozenset, found.values()), key=sorted) for f, found in enumerate(sets)]


def same(a: InputMap, b: InputMap) -> bool:
    """Return whether two maps say the same in the same order."""
    if (a.group is None) != (b.group is None):
        return False
    pairs = [(a.live, b.live), (a.feature, b.feature), (a.unit, b.unit)]
    pairs += [] if a.group is None or b.group is None else [(a.group, b.group)]
    return a.features == b.features and all(torch.equal(one, other) for one, other in pairs)
