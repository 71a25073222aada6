"""The values that the model's own tensors had when a task began, to go back to where training leaves NaN."""

from __future__ import annotations

import torch
from torch import Tensor

from fgadahat_hooks.distributed.wrappers import sharded_names
from fgadahat_hooks.gates.attached_model import AttachedModel
from fgadahat_hooks.gates.task_state import TaskState
from fgadahat_hooks.protection.finite_check import not_finite


class StartValues:
    """Copies of all tensors that a task trains and that no task has for itself, in the host's memory."""

    def __init__(self, attached: AttachedModel, state: TaskState) -> None:
        """Copy them; nothing if parameters are sharded, or on the meta device."""
        self._tensors = attached.tensors
        self._values: dict[str, Tensor] = {}
        if sharded_names(attached.model.named_parameters()):
            return
        for policy in attached.policies:
            tensor = self._tensors.tensor(policy.name)
            trained = policy.protection in ("gated", "shared") or (policy.protection == "frozen" and not state.records)
            written = tensor.requires_grad or policy.kind == "buffer"
            if trained and written and tensor.is_floating_point() and not tensor.is_meta:
                self._values[policy.name] = tensor.detach().to("cpu", copy=True)

    def restore_non_finite(self) -> None:
        """Give each tensor that holds NaN or infinity, and did not when the task began, the values it had then."""
        with torch.no_grad():
            for name in not_finite({name: self._tensors.tensor(name) for name in self._values}):
                if self._tensors.tensor(name).shape == self._values[name].shape:
                    self._tensors.tensor(name).copy_(self._values[name])
