"""Take from a model the exact values that finished tasks read: protected entries, and frozen tensors."""

from __future__ import annotations

from torch import Tensor

from fgadahat_hooks.callbacks import CallbackList, GradientAdjustCallback
from fgadahat_hooks.callbacks.protected_entries import protected_entries
from fgadahat_hooks.gates.attached_model import AttachedModel
from fgadahat_hooks.gates.kept_digest import KeptDigest
from fgadahat_hooks.gates.kept_entries import KeptEntries
from fgadahat_hooks.gates.kept_weights import Kept, KeptWeights
from fgadahat_hooks.gates.task_state import TaskState


def keep_weights(attached: AttachedModel, state: TaskState, callbacks: CallbackList) -> None:
    """Set `state.kept` to the values that the model has now; to None before the first task ends.

    Args:
        attached: The model.
        state: The tasks that are finished.
        callbacks: They determine whether, and how strictly, gated weights are protected.
    """
    if not state.records or not attached.traced:
        state.kept = None
        return
    adjusting = [c for c in callbacks.items if isinstance(c, GradientAdjustCallback)]
    limited = any(c.spec.mode != "hat_const_1" for c in adjusting)
    gated = _gated(attached, state) if limited else {}
    state.kept = KeptWeights(attached.tensors, gated, _frozen(attached, state), any(c.hard for c in adjusting))


def _gated(attached: AttachedModel, state: TaskState) -> dict[str, KeptEntries]:
    entries = protected_entries(attached.context(None, state))
    return {name: KeptEntries(weight, mask) for name, weight, mask in entries if bool(mask.any())}


def _frozen(attached: AttachedModel, state: TaskState) -> dict[str, Kept]:
    """Copy frozen tensors; of those that never train, as a pretrained backbone, at most as much as the gated layers."""
    buffers = [p.name for p in attached.policies if p.kind == "buffer" and p.protection == "frozen"]
    tensors = {name: attached.tensors.tensor(name) for name in (*state.frozen, *buffers)}
    untrained = sum(tensor.numel() for tensor in tensors.values() if not tensor.requires_grad)
    gated = sum(policy.numel for policy in attached.policies if policy.role == "gated")
    return {name: _kept(tensor, copy=tensor.requires_grad or untrained <= gated) for name, tensor in tensors.items()}


def _kept(tensor: Tensor, copy: bool) -> Kept:
    return KeptEntries(tensor) if copy else KeptDigest(tensor)
