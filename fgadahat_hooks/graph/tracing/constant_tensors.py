"""Which tensors hold the same values in every forward: indexing by them can be replayed exactly on labels."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef

from fgadahat_hooks.graph.tracing.forward import python_modules
from fgadahat_hooks.graph.tracing.operation import Operation, plain_tensors
from fgadahat_hooks.graph.tracing.storage import is_plain, storage_key


class ConstantTensors:
    """Storages that hold buffers, literals, and what was computed from these alone."""

    def __init__(self, model: nn.Module) -> None:
        """Start with the buffers and plain tensor attributes of a model; parameters change in training."""
        self._refs: dict[int, StorageWeakRef] = {}
        for module in python_modules(model):
            parameters = {id(p) for p in module._parameters.values()}
            own = [*module._buffers.values(), *vars(module).values()]
            self._add(t for t in own if isinstance(t, Tensor) and id(t) not in parameters)

    def __contains__(self, t: Tensor) -> bool:
        """Return whether a tensor is constant."""
        return is_plain(t) and storage_key(t) in self._refs

    def update(self, op: Operation) -> None:
        """Add the outputs of an executed operation if they are constant, and remove what it has written into."""
        if op.mutable:
            for t in op.written:
                self._refs.pop(storage_key(t), None)
        elif torch.Tag.nondeterministic_seeded not in op.func.tags and (
            op.name.startswith("lift_fresh") or all(t in self for t in op.inputs)
        ):
            self._add(plain_tensors(op.out))

    def _add(self, tensors: Iterable[Tensor]) -> None:
        for t in tensors:
            if is_plain(t) and not isinstance(t, nn.Parameter):
                self._refs[storage_key(t)] = StorageWeakRef(t.untyped_storage())
