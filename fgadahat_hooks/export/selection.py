"""Which channel groups can be removed: those from which every reader gets exactly zero in a task."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from fgadahat_hooks.export.channel_table import ChannelTable, PrunableTensor
from fgadahat_hooks.graph.unit_graph import UnitGraph

Candidate = frozenset[int]
"""Channel groups along the same axes of the same tensors: removed together, or not at all."""


def keep_nonzero_inputs(table: ChannelTable, graph: UnitGraph, masks: Mapping[str, Tensor]) -> None:
    """Keep every channel that a layer reads and that can be other than zero for some input.

    By the unit graph an input feature is zero if it is not live and all units that feed it are off. What is constant
    but not zero (a norm behind a gate, a function that takes zero to another number) counts as live.
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
        table.groups.keep(inputs[live.cpu()], f"not zero where '{entry.layer}' reads it")


def keep_one_per_axis(table: ChannelTable) -> None:
    """Keep the first channel, with its group, of every axis that would otherwise lose all its channels."""
    again = True
    while again:
        again = False
        for entry in table.entries.values():
            for channels in entry.channels.values():
                if len(channels) and bool(table.groups.removable(channels).all()):
                    table.groups.keep(channels[:1], "the last of its layer")
                    again = True


def removal_candidates(table: ChannelTable) -> list[Candidate]:
    """Return the removable groups, collected by the axes they lie along; groups without a layer's unit are left out."""
    axes: dict[int, set[tuple[int, int]]] = {}
    with_units: set[int] = set()
    for key, entry in table.entries.items():
        for axis, channels in entry.channels.items():
            for group in _removable_groups(table, channels):
                axes.setdefault(group, set()).add((key, axis))
                if _counts_units(entry, axis):
                    with_units.add(group)
    candidates: dict[frozenset[tuple[int, int]], set[int]] = {}
    for group, group_axes in axes.items():
        if group in with_units:
            candidates.setdefault(frozenset(group_axes), set()).add(group)
    return [frozenset(groups) for groups in candidates.values()]


def _removable_groups(table: ChannelTable, channels: Tensor) -> set[int]:
    return {table.groups.group(c) for c in channels.tolist() if table.groups.reason(c) is None}


def _counts_units(entry: PrunableTensor, axis: int) -> bool:
    """Return whether an axis of a layer's weight counts its units, or stands for them if no axis does."""
    layer_type = entry.layer_type
    return layer_type is not None and (axis == layer_type.weight_axis or entry.implicit_outputs is not None)


def kept_positions(table: ChannelTable, entry: PrunableTensor, axis: int, removed: set[int]) -> Tensor:
    """Return the positions along an axis whose groups are not removed, in order."""
    channels = enumerate(entry.channels[axis].tolist())
    kept = [position for position, channel in channels if table.groups.group(channel) not in removed]
    return torch.tensor(kept, dtype=torch.long, device="cpu")
