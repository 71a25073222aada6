"""Layers whose class has a forward of its own: is the output still one weight row a unit, and nothing else's?"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef

from fgadahat_hooks.graph.tracing.geometry import is_plain, storage_key
from fgadahat_hooks.graph.tracing.operation import Operation
from fgadahat_hooks.graph.tracing.recorder import ACTIVATIONS, LayerRecord, Recorder

_UNIT_BY_UNIT = ACTIVATIONS | {"clone", "_to_copy", "add", "dropout", "native_dropout"}
_USES = frozenset(("convolution", "mm", "bmm", "addmm", "baddbmm", "embedding"))


def has_own_forward(module: nn.Module, base: type[nn.Module]) -> bool:
    """Return whether a layer computes more, or other, than the class it derives from."""
    return type(module).forward is not base.forward or "forward" in vars(module)


class CustomForwards:
    """Follows the output of the weight's operation through the forwards of such layers.

    Anything but element-wise functions and the bias makes the layer `whole`: every weight may matter to every unit.
    So does reading, after the forward, what it left behind, because the gate acts on what it returned only.
    """

    def __init__(self, recorder: Recorder, owner: Callable[[Tensor], LayerRecord | None]) -> None:
        """Start with none running; `owner` tells whose weight a tensor is."""
        self._recorder = recorder
        self._owner = owner
        self._running: list[tuple[LayerRecord, dict[int, Tensor]]] = []
        self._left: dict[int, tuple[StorageWeakRef, LayerRecord]] = {}

    def enter(self, record: LayerRecord) -> None:
        """Start following a layer."""
        self._running.append((record, {}))

    def leave(self, record: LayerRecord, output: Any) -> Any:
        """Stop following; return a copy of the output, so that what the forward kept of it can be told apart."""
        if not self._running or self._running[-1][0] is not record:
            return output
        _, made = self._running.pop()
        if not isinstance(output, Tensor):
            return output
        if is_plain(output) and self._is_units(record, made.get(storage_key(output)), output):
            self._left.update({k: (StorageWeakRef(t.untyped_storage()), record) for k, t in made.items()})
        else:
            self._recorder.mix(record)
        return output.clone()

    def follow(self, op: Operation) -> None:
        """Learn from an operation."""
        for t in op.inputs:
            if storage_key(t) in self._left:
                self._recorder.mix(self._left[storage_key(t)][1])
        if self._running and op.first_out is not None:
            self._inside(op, op.first_out, *self._running[-1])

    def _inside(self, op: Operation, out: Tensor, record: LayerRecord, made: dict[int, Tensor]) -> None:
        touched = [storage_key(t) in made for t in op.inputs]
        if op.name in _USES and any(self._owner(t) is record for t in op.inputs):
            made[storage_key(out)] = out
        elif any(touched):
            bias = record.module._parameters.get("bias")
            other = all(bias is not None and storage_key(t) == storage_key(bias) for t in op.inputs[1:])
            if op.name in _UNIT_BY_UNIT and touched[0] and other:
                made[storage_key(out)] = out
            else:
                self._recorder.mix(record)

    @staticmethod
    def _is_units(record: LayerRecord, made: Tensor | None, output: Tensor) -> bool:
        axis = record.kind.unit_axis
        if made is None or made.numel() != output.numel() or min(made.dim(), output.dim()) < -axis:
            return False
        return made.shape[axis] == output.shape[axis] == record.units and made.stride(axis) == output.stride(axis)
