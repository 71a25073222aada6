"""Record one forward as a list of operations without side effects, so that parts of it can be rerun."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from fgadahat_hooks.importance.attribution.attribution_batch import AttributionBatch


@dataclass(frozen=True)
class TensorRef:
    """Stands for a tensor, by its number, among the arguments of a recorded operation."""

    index: int


@dataclass(frozen=True, eq=False)
class RecordedOp:
    """One recorded operation.

    Attributes:
        func: The dispatcher operation, e.g. `aten.convolution.default`.
        args: Its arguments, tensors replaced by `TensorRef`.
        kwargs: Its keyword arguments, likewise.
        inputs: Numbers of the tensors it reads.
        outputs: For each part of the result the number of a tensor, or None for anything else.
        grad_enabled: Whether gradients were enabled.
    """

    func: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    inputs: tuple[int, ...]
    outputs: tuple[int | None, ...]
    grad_enabled: bool


class StorageSize(NamedTuple):
    """The memory of a tensor: `size` bytes in the storage numbered `storage`."""

    storage: int
    size: int


@dataclass(eq=False)
class RecordedForward:
    """A recorded forward.

    Attributes:
        ops: All operations in order.
        values: The tensors by number, as they were, without gradient.
        sizes: The memory of each tensor.
        layer_calls: For each layer and each of its calls, the number of the operation that passes its output on.
        last_write: For each storage that was written into, the number of the last operation that did.
        scores: Number of the tensor of scores.
    """

    ops: list[RecordedOp] = field(default_factory=list)
    values: dict[int, Tensor] = field(default_factory=dict)
    sizes: list[StorageSize] = field(default_factory=list)
    layer_calls: dict[str, list[int]] = field(default_factory=dict)
    last_write: dict[int, int] = field(default_factory=dict)
    scores: int = -1


def record_forward(batch: AttributionBatch) -> RecordedForward:
    """Run the model once on the batch and return the operations it ran.

    Operations in place are replaced by functional ones (`torch.func.functionalize`), fused attention kernels by the
    operations they consist of: these can run on several copies at once, and have gradients.

    Raises:
        LeavesTorchError: The model reads values outside of torch; tensors that are being recorded have no memory there.
        Exception: Whatever torch raises for a model that cannot be recorded, or the model itself raises.
    """
    leaves, spec = pytree.tree_flatten(batch.inputs())
    places = [i for i, leaf in enumerate(leaves) if isinstance(leaf, Tensor)]
    recorder = _Recorder()

    def scores(*tensors: Tensor) -> Tensor:
        for place, tensor in zip(places, tensors, strict=True):
            leaves[place] = tensor
        return batch.run_on(pytree.tree_unflatten(leaves, spec), edit=recorder.mark).scores

    functional: Callable[..., Tensor] = torch.func.functionalize(scores, remove="mutations")
    with sdpa_kernel(SDPBackend.MATH), _RefuseLeavingTorch(), recorder:
        found = functional(*[leaves[place] for place in places])
    return recorder.finish(found)


class LeavesTorchError(Exception):
    """A forward reads values outside of torch."""


class _RefuseLeavingTorch(TorchFunctionMode):
    """Refuses functions that would read a tensor's memory, which tensors under `functionalize` do not have."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = getattr(func, "__name__", "")
        if name in ("numpy", "__array__", "tolist", "__dlpack__", "data_ptr"):
            raise LeavesTorchError(f"the model calls `{name}`")
        return func(*args, **(kwargs or {}))


class _Recorder(TorchDispatchMode):
    """Records every dispatcher operation, below autograd and below functionalization."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._recorded = RecordedForward()
        self._numbers: dict[int, int] = {}
        self._storages: dict[int, int] = {}
        self._marked_layer: str | None = None

    def mark(self, layer: str, _: int, value: Tensor) -> Tensor:
        """Copy a layer's output; the operation that copies it is recorded as this call of the layer."""
        self._marked_layer = layer
        return value.clone()

    def finish(self, scores: Tensor) -> RecordedForward:
        """Return the recorded forward; its tensors are detached from the autograd graph."""
        recorded, self._recorded = self._recorded, RecordedForward()
        recorded.scores = self._numbers.get(id(scores), -1)
        recorded.values = {number: value.detach() for number, value in recorded.values.items()}
        return recorded

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        recorded, number = self._recorded, len(self._recorded.ops)
        if func._schema.is_mutable:
            self._note_writes(func, args, kwargs, number)
        stored_args, stored_kwargs = stored = pytree.tree_map_only(Tensor, self._ref, (args, kwargs))
        inputs = tuple(leaf.index for leaf in pytree.tree_leaves(stored) if isinstance(leaf, TensorRef))
        result = func(*args, **kwargs)
        flat = pytree.tree_leaves(result)
        outputs = tuple(self._ref(leaf).index if isinstance(leaf, Tensor) else None for leaf in flat)
        recorded.ops.append(RecordedOp(func, stored_args, stored_kwargs, inputs, outputs, torch.is_grad_enabled()))
        if self._marked_layer is not None and func is torch.ops.aten.clone.default:
            recorded.layer_calls.setdefault(self._marked_layer, []).append(number)
            self._marked_layer = None
        return result

    def _ref(self, tensor: Tensor) -> TensorRef:
        """Return the number of a tensor; the tensor is kept alive, so that its `id` stays unique."""
        number = self._numbers.setdefault(id(tensor), len(self._numbers))
        if number not in self._recorded.values:
            self._recorded.values[number] = tensor
            storage = tensor.untyped_storage()
            place = self._storages.setdefault(storage._cdata, len(self._storages))
            self._recorded.sizes.append(StorageSize(place, storage.nbytes()))
        return TensorRef(number)

    def _note_writes(self, func: Any, args: Any, kwargs: Any, number: int) -> None:
        """Note what an operation writes into: earlier operations that read it cannot be rerun afterwards."""
        for argument, value in zip(func._schema.arguments, args, strict=False):
            if argument.alias_info is not None and argument.alias_info.is_write:
                self._note_write(value, number)
        for argument in func._schema.arguments:
            if argument.name in kwargs and argument.alias_info is not None and argument.alias_info.is_write:
                self._note_write(kwargs[argument.name], number)

    def _note_write(self, value: Any, number: int) -> None:
        for tensor in pytree.tree_leaves(value):
            if isinstance(tensor, Tensor):
                storage = self._recorded.sizes[self._ref(tensor).index].storage
                self._recorded.last_write[storage] = number
