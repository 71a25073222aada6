"""Which part of each layer a task reads, uses and can train."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor

from fgadahat_hooks.gates.attached_model import AttachedModel
from fgadahat_hooks.gates.task_state import TaskState
from fgadahat_hooks.graph.unit_graph import InputMap, UnitGraph


class OpenShares(NamedTuple):
    """Shares of one layer under a task's hard mask, 0 to 1.

    Attributes:
        inputs: Share `f` of its inputs that are fed by an open unit, or always live.
        units: Share `p` of its units that are open.
        new: Share `q` of its units that are open and that no finished task uses.
    """

    inputs: float
    units: float
    new: float


def open_shares(attached: AttachedModel, state: TaskState) -> dict[str, OpenShares]:
    """Return the shares of every gated layer, under the hard masks that the gates have now."""
    graph = attached.graph
    masks = {name: gate.hard_mask().cpu() for name, gate in attached.gates.items()}
    inputs = open_inputs(graph, masks, graph.layers)
    used = state.cumulative_mask(graph)
    return {
        name: OpenShares(inputs[name], float(mask.double().mean()), float((mask * ~used[name].cpu()).double().mean()))
        for name, mask in masks.items()
    }


def open_inputs(graph: UnitGraph, masks: dict[str, Tensor], names: Iterable[str]) -> dict[str, float]:
    """Return the share of open inputs of each named layer; 1 where nothing is known of its inputs."""
    joined = graph.join(masks).double() if masks else torch.zeros(0, dtype=torch.float64)
    return {name: _open_share(graph.inputs.get(name), joined) for name in names}


def _open_share(inputs: InputMap | None, joined: Tensor) -> float:
    if inputs is None or not inputs.features:
        return 1.0
    return float(inputs.gather_max(joined, 1.0).mean())
