"""Which slots may go: those whose every reader gets exactly zero from them in a task."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from fgadahat_hooks.export.slots import Sliced, SlotTable
from fgadahat_hooks.graph.unit_graph import UnitGraph

Cut = frozenset[int]
"""Roots of the slots that go together because they cut the same tensors along the same axes."""


def fix_live(table: SlotTable, graph: UnitGraph, masks: Mapping[str, Tensor]) -> None:
    """Let everything stay that a layer reads and that can be other than zero, whatever the input.

    The unit graph knows it: an input feature is zero if it is not live and all units that feed it are off. What is
    constant but not zero (a norm behind a gate, a function that takes zero to another number) counts as live.
    """
    on = {name: masks[name].float() for name in graph.layers}
    values = graph.join(on) if on else torch.zeros(0, device="cpu")
    for entry in table.layers():
        inputs = entry.inputs
        if inputs is None:
            continue  # grouped: read by its own outputs alone
        found = [graph.inputs[name] for name, local in entry.owners if local == "weight" and name in graph.inputs]
        if len(found) == 1 and found[0].features == len(inputs):
            live = found[0].gather_max(values, 1.0) > 0
        else:
            live = torch.ones(len(inputs), dtype=torch.bool, device="cpu")
        table.slots.fix(inputs[live.cpu()], f"not zero where '{entry.layer}' reads it")


def fix_last(table: SlotTable) -> None:
    """Let one slot stay along every axis, and with it all that it is joined with."""
    again = True
    while again:
        again = False
        for entry in table.entries.values():
            for slots in entry.axes.values():
                if len(slots) and bool(table.slots.free(slots).all()):
                    table.slots.fix(slots[:1], "the last of its layer")
                    again = True


def cuts(table: SlotTable) -> list[Cut]:
    """Return what may go, grouped by the axes it cuts; a class without a layer's unit in it is none."""
    axes: dict[int, set[tuple[int, int]]] = {}
    units: set[int] = set()
    for key, entry in table.entries.items():
        for axis, slots in entry.axes.items():
            for root in _free_roots(table, slots):
                axes.setdefault(root, set()).add((key, axis))
                if entry.kind is not None and (axis == entry.kind.weight_axis or entry.apart is not None):
                    units.add(root)
    groups: dict[frozenset[tuple[int, int]], set[int]] = {}
    for root, where in axes.items():
        if root in units:
            groups.setdefault(frozenset(where), set()).add(root)
    return [frozenset(roots) for roots in groups.values()]


def _free_roots(table: SlotTable, slots: Tensor) -> set[int]:
    return {table.slots.root(s) for s in slots.tolist() if table.slots.reason(s) is None}


def kept(table: SlotTable, entry: Sliced, axis: int, gone: set[int]) -> Tensor:
    """Return the places along an axis that stay, in order."""
    stay = [place for place, slot in enumerate(entry.axes[axis].tolist()) if table.slots.root(slot) not in gone]
    return torch.tensor(stay, dtype=torch.long, device="cpu")
