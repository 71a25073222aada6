"""Before a task: give the free units, and the head, the signal that they get without gates."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fgadahat_hooks.functional.plasticity import free_row_factor
from fgadahat_hooks.gates.attached_model import AttachedModel
from fgadahat_hooks.gates.context import GatedLayer
from fgadahat_hooks.gates.open_shares import OpenShares, open_inputs, open_shares
from fgadahat_hooks.gates.task_state import TaskState


def row_norms(attached: AttachedModel) -> dict[str, Tensor]:
    """Return the norm of the incoming weights of each gated unit, `(units,)` per layer."""
    return {name: _norms(layer) for name, layer in attached.layers().items()}


def _norms(layer: GatedLayer) -> Tensor:
    weight = layer.weight.detach()
    return layer.kind.sum_by_unit(layer.module, weight.square()).sqrt().clone()


def rescale(attached: AttachedModel, state: TaskState, fresh_head: bool) -> None:
    """Rescale the rows that no finished task uses, and the weights of a head that the task starts anew.

    A free row gets the norm that it had before the first task, divided by the root of the layer's share of open inputs.
    Rows of layers whose entries are mixed, and frozen weights (`requires_grad`), are left alone.

    Args:
        attached: The model; its gates have the masks that the task begins with.
        state: The tasks that are finished.
        fresh_head: Whether the head's values are those of a new layer.
    """
    shares, used = open_shares(attached, state), state.cumulative_mask(attached.graph)
    with torch.no_grad():
        for name, layer in attached.layers().items():
            if not layer.info.mixed_weight and name in attached.row_norms and layer.weight.requires_grad:
                _rescale_free_rows(layer, attached.row_norms[name], ~used[name], shares[name])
        if fresh_head:
            _rescale_heads(attached)


def _rescale_free_rows(layer: GatedLayer, before: Tensor, free: Tensor, shares: OpenShares) -> None:
    now = _norms(layer)
    wanted = before.to(now) * free_row_factor(shares.inputs)
    factor = torch.where(free.to(now.device) & (now > 0), wanted / now.clamp(min=torch.finfo(now.dtype).tiny), 1.0)
    layer.weight.mul_(layer.kind.unit_view(layer.module, factor))


def _rescale_heads(attached: AttachedModel) -> None:
    masks = {name: gate.hard_mask().cpu() for name, gate in attached.gates.items()}
    for name, share in open_inputs(attached.graph, masks, attached.graph.heads).items():
        weight = attached.model.get_submodule(name)._parameters.get("weight")
        if isinstance(weight, nn.Parameter) and id(weight) not in attached.tied:
            weight.mul_(free_row_factor(share))
