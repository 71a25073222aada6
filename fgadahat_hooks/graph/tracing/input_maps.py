"""Input maps of one layer from different forwards: their union, and whether they are equal."""

from __future__ import annotations

import torch

from fgadahat_hooks.graph.tracing.labels import simplified
from fgadahat_hooks.graph.unit_graph import InputMap

Row = list[frozenset[int]] | None
"""What must be on for one input to be non-zero: a unit of each set; None if the input is live."""


def merge_input_maps(a: InputMap, b: InputMap) -> InputMap:
    """Return the map of inputs that are non-zero if they are so by one map or by the other."""
    if equal_input_maps(a, b):
        return a
    rows = [_merge_rows(one, other) for one, other in zip(_rows(a), _rows(b), strict=True)]
    live = torch.tensor([row is None for row in rows], dtype=torch.bool, device="cpu")
    triples = [(f, unit, g) for f, row in enumerate(rows) for g, one in enumerate(row or ()) for unit in sorted(one)]
    feature, unit, group = torch.tensor(triples, dtype=torch.long, device="cpu").view(-1, 3).unbind(1)
    return InputMap(len(rows), live, feature, unit, group if bool(group.any()) else None)


def equal_input_maps(a: InputMap, b: InputMap) -> bool:
    """Return whether two maps hold the same pairs in the same order."""
    if (a.group is None) != (b.group is None):
        return False
    pairs = [(a.live, b.live), (a.feature, b.feature), (a.unit, b.unit)]
    pairs += [] if a.group is None or b.group is None else [(a.group, b.group)]
    return a.features == b.features and all(torch.equal(one, other) for one, other in pairs)


def _merge_rows(a: Row, b: Row) -> Row:
    if a is None or b is None:
        return None
    if not a or not b or a == b:  # an input without any set is always zero
        return a or b
    both = simplified((one | other for one in a for other in b), lambda units: (len(units), sorted(units)))
    return sorted(both, key=sorted) or None


def _rows(inputs: InputMap) -> list[Row]:
    """Return the sets of units of each input."""
    sets: list[dict[int, set[int]]] = [{} for _ in range(inputs.features)]
    groups = torch.zeros_like(inputs.unit) if inputs.group is None else inputs.group
    for feature, unit, group in zip(inputs.feature.tolist(), inputs.unit.tolist(), groups.tolist(), strict=True):
        sets[feature].setdefault(group, set()).add(unit)
    live = inputs.live.tolist()
    return [None if live[f] else sorted(map(frozenset, found.values()), key=sorted) for f, found in enumerate(sets)]
