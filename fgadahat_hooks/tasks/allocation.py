"""Units by share: a task gets its part of the free units of each layer by lot, and reads all that earlier tasks use."""

from __future__ import annotations

import torch
from torch import Tensor

from fgadahat_hooks.functional.plasticity import task_share
from fgadahat_hooks.gates.attached_model import AttachedModel
from fgadahat_hooks.gates.task_state import TaskState


def allot_units(attached: AttachedModel, state: TaskState) -> None:
    """Set the embeddings so that the masks of a new task are its share of the free units and all used ones.

    An embedding is the bound `gates.embedding_clamp` for an open unit and its negative for a closed one.
    """
    bound, tasks = attached.spec.gates.embedding_clamp, attached.spec.gates.tasks or 1
    for name, gate in attached.gates.items():
        used = _used(name, gate.embedding, state)
        share = task_share(used.numel(), tasks, state.finished)
        chosen = used | _lot(~used, share)
        with torch.no_grad():
            gate.embedding.copy_(torch.where(chosen, bound, -bound))


def _used(name: str, like: Tensor, state: TaskState) -> Tensor:
    used = torch.zeros(like.numel(), dtype=torch.bool, device=like.device)
    for record in state.records.values():
        used |= record.masks[name].to(like.device)
    return used


def _lot(free: Tensor, count: int) -> Tensor:
    """Choose `count` of the free units at random, or all of them if there are fewer."""
    places = free.nonzero().flatten()
    chosen = torch.zeros_like(free)
    chosen[places[torch.randperm(len(places))[:count].to(places.device)]] = True
    return chosen
