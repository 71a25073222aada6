"""The dispatch mode that carries labels beside the tensors of one real forward."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from fgadahat_hooks.tracing.labels import LIVE
from fgadahat_hooks.tracing.recorder import LayerRecord, Recorder
from fgadahat_hooks.tracing.rules import RULES, Call, fill_label
from fgadahat_hooks.tracing.store import storage_key

_MATMULS = {"mm": (0, 1), "bmm": (0, 1), "addmm": (1, 2), "baddbmm": (1, 2)}
_COPIES = {"_to_copy", "clone", "contiguous"}


class TaintMode(TorchDispatchMode):
    """Runs every operation, then tells the recorder and the label store about it."""

    def __init__(self, recorder: Recorder) -> None:
        """Start with an empty module stack."""
        super().__init__()  # type: ignore[no-untyped-call]
        self.recorder = recorder
        self.stack: list[str] = []
        self.norms: list[str] = []
        self._copies: dict[int, tuple[StorageWeakRef, str]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run the operation and visit it."""
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        self._visit(func, args, kwargs, out)
        return out

    # -------------------------------------------------------------- one operation
    def _visit(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> None:
        name = func.overloadpacket.__name__
        base = name.removesuffix("_") if not name.endswith("__") else name
        tensors = list(_tensors((args, kwargs)))
        mutable = func._schema.is_mutable
        if not mutable and _is_view(out, tensors):
            return
        if not self.norms:
            for t in tensors:
                self.recorder.read(base, args, t, in_place=mutable)
        if not self._uses_weight(base, func, args, kwargs, out, tensors):
            self._relabel(base, func, args, kwargs, out, tensors, mutable)

    def _relabel(
        self, base: str, func: Any, args: Any, kwargs: Any, out: Any, tensors: list[Tensor], mutable: bool
    ) -> None:
        store, table = self.recorder.store, self.recorder.table
        written = _written(func, args, kwargs) if mutable else _first_tensor(out)
        fill = fill_label(base, args)
        labels: Tensor | int = LIVE
        if fill is not None:
            labels = fill
        elif base in RULES and any(store.get(t) is not None for t in tensors):
            labels = RULES[base](Call(func, args, kwargs, _bind(func, args, kwargs), out, table, store))
        for position, t in enumerate(written):
            store.put(t, LIVE if position else labels)

    # -------------------------------------------------------------- operations that use a recorded weight
    def _owner(self, t: Tensor) -> LayerRecord | None:
        key = storage_key(t)
        name = self.recorder.owners.get(key) or (self._copies[key][1] if key in self._copies else None)
        return None if name is None else self.recorder.records[name]

    def _uses_weight(self, base: str, func: Any, args: Any, kwargs: Any, out: Any, tensors: list[Tensor]) -> bool:
        """Handle an operation that reads a recorded weight; return whether the output has been labelled."""
        used = [(t, owner) for t in tensors if (owner := self._owner(t)) is not None]
        if not used:
            return False
        t, owner = used[0]
        if base in _COPIES and out.stride() == t.stride() and t.storage_offset() == 0:
            self._copies[storage_key(out)] = (StorageWeakRef(out.untyped_storage()), owner.name)
            return True
        if (
            len(used) == 1
            and base == "convolution"
            and args[1] is t
            and not args[6]
            and self._convolve(owner, args, out)
        ):
            return True
        if (
            len(used) == 1
            and base in _MATMULS
            and args[_MATMULS[base][1]] is t
            and self._multiply(owner, base, args, out)
        ):
            return True
        for _, record in used:
            self.recorder.mix(record)
        return False

    def _convolve(self, record: LayerRecord, args: Any, out: Tensor) -> bool:
        x, weight, bias = args[:3]
        if weight.shape != record.weight.shape or args[8] != getattr(record.module, "groups", 1):
            return False
        store, table = self.recorder.store, self.recorder.table
        labels = store.get(x)
        if labels is None:
            labels = torch.tensor(LIVE, dtype=torch.int32).expand(x.shape)
        axes = [d for d in range(x.dim()) if d != 1]
        self.recorder.feed(record, table.over(labels, axes).flatten())
        self._finish(record, out, self.recorder.atoms(record, "raw"), 1, bias)
        return True

    def _multiply(self, record: LayerRecord, base: str, args: Any, out: Tensor) -> bool:
        """Handle `x @ W.T`, also for a part of `W`."""
        x, weight = (args[i] for i in _MATMULS[base])
        grid = _grid(weight, record)
        if grid is None:
            return False
        rows, columns = grid
        store, table = self.recorder.store, self.recorder.table
        labels = store.get(x)
        if labels is None:
            labels = torch.tensor(LIVE, dtype=torch.int32).expand(x.shape)
        self.recorder.feed(record, table.over(labels, range(x.dim() - 1)).flatten(), columns)
        self._finish(record, out, self.recorder.atoms(record, "raw")[rows], -1, args[0] if len(args) > 2 else None)
        return True

    def _finish(self, record: LayerRecord, out: Tensor, atoms: Tensor, axis: int, bias: Tensor | None) -> None:
        """Label the output of a functional use; inside the layer's own forward its forward hook does it."""
        if record.name in self.stack:
            return
        host = self.stack[-1] if self.stack else ""
        record.hosts += [host] if host not in record.hosts else []
        shape = [1] * out.dim()
        shape[axis] = atoms.numel()
        labels = atoms.view(shape).expand(out.shape)
        if bias is not None:
            table, found = self.recorder.table, self.recorder.store.get(bias)
            added = torch.tensor(LIVE, dtype=torch.int32) if found is None else found
            added = added.view(shape) if found is not None and found.dim() == 1 else added
            labels = table.either(labels, added).expand(out.shape)
        self.recorder.store.put(out, labels)


def _grid(weight: Tensor, record: LayerRecord) -> tuple[Tensor, Tensor] | None:
    """Return row and input-feature numbers of the columns and rows of a view `(..., K, N)` of a weight; None if odd."""
    if weight.dim() > 2 and any(s != 0 and n > 1 for s, n in zip(weight.stride()[:-2], weight.shape[:-2], strict=True)):
        return None
    width = record.weight[0].numel() if record.units else 0
    if width != record.kind.inputs(record.module) or width == 0:
        return None
    k, n = int(weight.shape[-2]), int(weight.shape[-1])
    step, jump, offset = int(weight.stride(-2)), int(weight.stride(-1)), int(weight.storage_offset())
    last = offset % width + (k - 1) * step
    if jump % width or last >= width:
        return None
    rows, columns = torch.arange(n) * (jump // width), torch.arange(k) * step
    return offset // width + rows, offset % width + columns


def _tensors(tree: Any) -> Iterator[Tensor]:
    for leaf in pytree.tree_leaves(tree):
        if isinstance(leaf, Tensor) and leaf.layout == torch.strided:
            yield leaf


def _first_tensor(out: Any) -> list[Tensor]:
    first = out[0] if isinstance(out, list | tuple) and out else out
    return [first] if isinstance(first, Tensor) else []


def _is_view(out: Any, tensors: list[Tensor]) -> bool:
    keys = {storage_key(t) for t in tensors}
    outs = list(_tensors(out))
    return bool(outs) and all(storage_key(o) in keys for o in outs)


def _bind(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """Return all arguments of an operation by their schema names."""
    schema = func._schema.arguments
    bound = {a.name: a.default_value for a in schema if a.has_default_value()}
    bound.update({a.name: value for a, value in zip(schema, args, strict=False)})
    return {**bound, **kwargs}


def _written(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Tensor]:
    """Return the tensors an operation writes into, in the order of its schema."""
    bound = _bind(func, args, kwargs)
    names = [a.name for a in func._schema.arguments if a.alias_info is not None and a.alias_info.is_write]
    return [t for name in names for t in _tensors(bound[name])]


def is_batch_norm(module: nn.Module) -> bool:
    """Return whether a module normalises each channel by statistics that are fixed in evaluation mode."""
    return isinstance(module, nn.modules.batchnorm._BatchNorm)
