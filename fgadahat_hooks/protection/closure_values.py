"""The values before a step whose closure runs forwards: a new execution path in it may protect more entries."""

from __future__ import annotations

import torch

from fgadahat_hooks.callbacks import CallbackList
from fgadahat_hooks.gates.attached_model import AttachedModel
from fgadahat_hooks.gates.task_state import TaskState
from fgadahat_hooks.protection.keeping import keep_weights


class ClosureValues:
    """Copies of the gated parameters; other steps need none, because new paths are traced before them."""

    def __init__(self, attached: AttachedModel, state: TaskState) -> None:
        """Copy them."""
        names = [policy.name for policy in attached.policies if policy.role == "gated"]
        self._kept = state.kept
        self._copies = {name: attached.tensors.tensor(name).detach().clone() for name in names}

    def extend_kept(self, attached: AttachedModel, state: TaskState, callbacks: CallbackList) -> None:
        """Keep the values from before the step of entries that are protected since the step began."""
        if state.kept is self._kept:
            return
        live = {name: attached.tensors.tensor(name) for name in self._copies}
        moved = {name: tensor.detach().clone() for name, tensor in live.items()}
        with torch.no_grad():
            for name, tensor in live.items():
                tensor.copy_(self._copies[name])
            keep_weights(attached, state, callbacks)
            for name, tensor in live.items():
                tensor.copy_(moved[name])
