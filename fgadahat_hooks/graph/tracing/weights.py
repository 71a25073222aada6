"""Operations that use a recorded weight: which inputs feed which units, and who may fold a gate into it."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef

from fgadahat_hooks.graph.tracing.geometry import along, storage_key
from fgadahat_hooks.graph.tracing.labels import LIVE, constant
from fgadahat_hooks.graph.tracing.operation import Operation
from fgadahat_hooks.graph.tracing.recorder import LayerRecord, Recorder

_MATMULS = {"mm": (0, 1), "bmm": (0, 1), "addmm": (1, 2), "baddbmm": (1, 2)}
_COPIES = frozenset(("_to_copy", "clone", "contiguous"))
_LOOKUP = "embedding"


class WeightUses:
    """Recognises layers by the weight that an operation reads, whoever calls it."""

    def __init__(self, recorder: Recorder, stack: list[str]) -> None:
        """Watch the layers of a recorder.

        Args:
            recorder: Where uses are noted.
            stack: Names of the running modules, innermost last; shared with the mode.
        """
        self._recorder = recorder
        self._stack = stack
        self._copies: dict[int, tuple[StorageWeakRef, str]] = {}
        self._kinds = (self._convolve, self._multiply, self._look_up)

    def owner(self, t: Tensor) -> LayerRecord | None:
        """Return the layer whose weight, or a copy of it, `t` is (a view of)."""
        key = storage_key(t)
        name = self._recorder.owners.get(key) or (self._copies[key][1] if key in self._copies else None)
        return None if name is None else self._recorder.records[name]

    def handle(self, op: Operation) -> bool:
        """Handle an operation; return whether its output has been labelled."""
        for t in op.inputs:
            self._read_bias(t)
        used = [(t, owner) for t in op.inputs if (owner := self.owner(t)) is not None]
        if not used:
            return False
        t, record = used[0]
        if self._copied(op, t, record):
            return True
        by_module = bool(self._stack)  # outside of all modules nothing could fold a gate
        if by_module and len(used) == 1 and any(use(op, t, record) for use in self._kinds):
            return True
        for _, other in used:
            self._mixed(op, other)
        return False

    # -------------------------------------------------------------- kinds of use
    def _copied(self, op: Operation, t: Tensor, record: LayerRecord) -> bool:
        out = op.first_out
        if op.name not in _COPIES or op.mutable or out is None or t.storage_offset() or out.stride() != t.stride():
            return False
        self._copies[storage_key(out)] = (StorageWeakRef(out.untyped_storage()), record.name)
        return True

    def _convolve(self, op: Operation, t: Tensor, record: LayerRecord) -> bool:
        if op.name != "convolution" or op.mutable or op.args[1] is not t or not _is_all_of(record.weight, t):
            return False
        if op.args[6] != (record.kind.weight_axis == 1) or op.args[8] != getattr(record.module, "groups", 1):
            return False
        x = op.args[0]
        axes = [d for d in range(x.dim()) if d != 1]
        self._recorder.feed(record, self._recorder.table.over(self._labels(x), axes).flatten())
        self._finish(op, record, self._recorder.atoms(record, "raw"), 1, op.args[2])
        return True

    def _multiply(self, op: Operation, t: Tensor, record: LayerRecord) -> bool:
        """Handle `x @ W.T`, also for a part of `W`, and for a `W` that is stored transposed."""
        if op.name not in _MATMULS or op.mutable or op.args[_MATMULS[op.name][1]] is not t:
            return False
        grid = weight_grid(t, record)
        if grid is None:
            return False
        rows, columns = grid
        x = op.args[_MATMULS[op.name][0]]
        fed = self._recorder.table.over(self._labels(x), range(x.dim() - 1)).flatten()
        self._recorder.feed(record, fed, columns)
        bias = op.args[0] if op.name in ("addmm", "baddbmm") else None
        self._finish(op, record, self._recorder.atoms(record, "raw")[rows], -1, bias)
        return True

    def _look_up(self, op: Operation, t: Tensor, record: LayerRecord) -> bool:
        """Handle rows of a table picked by numbers."""
        if op.name != _LOOKUP or op.args[0] is not t or not _is_all_of(record.weight, t):
            return False
        if record.kind.inputs(record.module):  # a layer that reads features, and whose weight is used as a table
            return False
        self._recorder.feed(record, constant(LIVE, (0,)))
        self._finish(op, record, self._recorder.atoms(record, "raw"), -1, None)
        return True

    def _mixed(self, op: Operation, record: LayerRecord) -> None:
        if op.name != _LOOKUP or record.is_target:
            self._recorder.mix(record)

    # -------------------------------------------------------------- where it happens
    def _read_bias(self, t: Tensor) -> None:
        """A bias read outside its layer has its units' labels only if a gate is folded into it there."""
        name = self._recorder.biases.get(storage_key(t))
        if name is None or name in self._stack:
            return
        if self._stack:
            self._recorder.hosted(self._recorder.records[name], self._stack[-1])
        else:
            self._recorder.store.forget([storage_key(t)])

    def _finish(self, op: Operation, record: LayerRecord, atoms: Tensor, axis: int, bias: Tensor | None) -> None:
        """Label the output of a functional use; inside the layer's own forward its forward hook does it."""
        out = op.first_out
        if out is None or record.name in self._stack:
            return
        self._recorder.hosted(record, self._stack[-1])
        labels = along(atoms, out, axis)
        if bias is not None:
            added = self._labels(bias)
            labels = self._recorder.table.either(labels, along(added, out, axis) if added.dim() == 1 else added)
        self._recorder.store.put(out, labels)

    def _labels(self, t: Tensor) -> Tensor:
        found = self._recorder.store.get(t)
        return constant(LIVE, t.shape) if found is None else found


def _is_all_of(weight: Tensor, t: Tensor) -> bool:
    return t.shape == weight.shape and t.stride() == weight.stride() and not t.storage_offset()


def weight_grid(weight: Tensor, record: LayerRecord) -> tuple[Tensor, Tensor] | None:
    """Return row and input-feature numbers of the columns and rows of a view `(..., K, N)` of a weight; None if odd."""
    whole, kind = record.weight, record.kind
    sizes = (record.units, kind.inputs(record.module))
    lines, width = sizes[kind.weight_axis], sizes[1 - kind.weight_axis]
    if tuple(whole.shape[:2]) != (lines, width) or whole.numel() != lines * width or width == 0:
        return None
    if not whole.is_contiguous() or whole.storage_offset():
        return None
    if any(s != 0 and n > 1 for s, n in zip(weight.stride()[:-2], weight.shape[:-2], strict=True)):
        return None
    found = _lines_and_places(weight if kind.weight_axis == 0 else weight.mT, width)
    return found if found is None or kind.weight_axis == 0 else found[::-1]


def _lines_and_places(view: Tensor, width: int) -> tuple[Tensor, Tensor] | None:
    """Return which lines of a matrix of `width` places a line the columns of a view are, and its rows which places."""
    k, n, offset = int(view.shape[-2]), int(view.shape[-1]), int(view.storage_offset())
    step = int(view.stride(-2)) if k > 1 else 1
    jump = int(view.stride(-1)) if n > 1 else width
    if step < 1 or jump < width or jump % width or offset % width + (k - 1) * step >= width:
        return None
    lines, places = torch.arange(n, device="cpu") * (jump // width), torch.arange(k, device="cpu") * step
    return offset // width + lines, offset % width + places
