"""Layers whose class overrides `forward`: does each output unit still depend on one row of the weight alone?"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef

from fgadahat_hooks.graph.tracing.layer_record import LayerRecord
from fgadahat_hooks.graph.tracing.operation import Operation
from fgadahat_hooks.graph.tracing.recorder import ACTIVATIONS, Recorder
from fgadahat_hooks.graph.tracing.storage import is_plain, storage_key

_ELEMENTWISE = ACTIVATIONS | {"clone", "_to_copy", "add", "dropout", "native_dropout"}
_WEIGHT_OPERATIONS = frozenset(("convolution", "mm", "bmm", "addmm", "baddbmm", "embedding"))


def has_own_forward(module: nn.Module, base: type[nn.Module]) -> bool:
    """Return whether a layer's forward is not that of the torch class it derives from."""
    return type(module).forward is not base.forward or "forward" in vars(module)


class CustomForwards:
    """Follows the output of the weight's operation through the forwards of such layers.

    If anything but element-wise functions and the bias is applied to it, the layer's weight counts as mixed: every
    entry may matter to every unit. The same holds if a tensor that the forward kept is read after it, because the gate
    acts on the returned tensor only.
    """

    def __init__(self, recorder: Recorder, owner: Callable[[Tensor], LayerRecord | None]) -> None:
        """Start with no layer running.

        Args:
            recorder: Where mixed weights are recorded.
            owner: Returns the layer whose weight a tensor is.
        """
        self._recorder = recorder
        self._owner = owner
        self._running: list[tuple[LayerRecord, dict[int, Tensor]]] = []
        self._kept: dict[int, tuple[StorageWeakRef, LayerRecord]] = {}

    def enter(self, record: LayerRecord) -> None:
        """Start following a layer."""
        self._running.append((record, {}))

    def leave(self, record: LayerRecord, output: Any) -> Any:
        """Stop following; return a copy of the output, to distinguish it from what the forward kept of it."""
        if not self._running or self._running[-1][0] is not record:
            return output
        _, made = self._running.pop()
        if not isinstance(output, Tensor):
            return output
        if is_plain(output) and self._is_units(record, made.get(storage_key(output)), output):
            self._kept.update({k: (StorageWeakRef(t.untyped_storage()), record) for k, t in made.items()})
        else:
            self._recorder.record_mixed_weight(record)
        return output.clone()

    def follow(self, op: Operation) -> None:
        """Follow an executed operation."""
        for t in op.inputs:
            if storage_key(t) in self._kept:
                self._recorder.record_mixed_weight(self._kept[storage_key(t)][1])
        if self._running and op.first_out is not None:
            self._follow_inside(op, op.first_out, *self._running[-1])

    def _follow_inside(self, op: Operation, out: Tensor, record: LayerRecord, made: dict[int, Tensor]) -> None:
        """Follow an operation in a layer's forward; `made` holds the tensors whose units are still the layer's."""
        if op.name in _WEIGHT_OPERATIONS and any(self._owner(t) is record for t in op.inputs):
            made[storage_key(out)] = out
        elif any(storage_key(t) in made for t in op.inputs):
            if op.name in _ELEMENTWISE and storage_key(op.inputs[0]) in made and _adds_only_bias(op, record):
                made[storage_key(out)] = out
            else:
                self._recorder.record_mixed_weight(record)

    @staticmethod
    def _is_units(record: LayerRecord, made: Tensor | None, output: Tensor) -> bool:
        """Return whether the output shows the units of `made` along the layer's unit axis."""
        axis = record.kind.unit_axis
        if made is None or made.numel() != output.numel() or min(made.dim(), output.dim()) < -axis:
            return False
        return made.shape[axis] == output.shape[axis] == record.units and made.stride(axis) == output.stride(axis)


def _adds_only_bias(op: Operation, record: LayerRecord) -> bool:
    """Return whether all tensor arguments after the first are the layer's bias."""
    bias = record.module._parameters.get("bias")
    return all(bias is not None and storage_key(t) == storage_key(bias) for t in op.inputs[1:])
