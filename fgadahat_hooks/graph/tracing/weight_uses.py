"""Operations that use a recorded weight: which inputs feed which units, and which modules may gate the weight."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef

from fgadahat_hooks.graph.tracing.labels import LIVE, constant
from fgadahat_hooks.graph.tracing.layer_record import LayerRecord
from fgadahat_hooks.graph.tracing.operation import Operation
from fgadahat_hooks.graph.tracing.recorder import Recorder
from fgadahat_hooks.graph.tracing.storage import expand_along, storage_key

_MATMULS = {"mm": (0, 1), "bmm": (0, 1), "addmm": (1, 2), "baddbmm": (1, 2)}
"""Matrix products, with the indices of the two factors among the arguments."""
_COPIES = frozenset(("_to_copy", "clone", "contiguous"))
_EMBEDDING = "embedding"


class WeightUses:
    """Recognises layers by the weight that an operation reads, whatever module calls it."""

    def __init__(self, recorder: Recorder, stack: list[str]) -> None:
        """Watch the layers of a recorder.

        Args:
            recorder: Where uses are recorded.
            stack: Names of the running modules, innermost last; shared with the dispatch mode.
        """
        self._recorder = recorder
        self._stack = stack
        self._copies: dict[int, tuple[StorageWeakRef, str]] = {}
        self._handlers = (self._convolution, self._matrix_product, self._embedding)

    def owner(self, t: Tensor) -> LayerRecord | None:
        """Return the layer whose weight, or a copy of it, `t` is (a view of)."""
        key = storage_key(t)
        name = self._recorder.weight_owners.get(key) or (self._copies[key][1] if key in self._copies else None)
        return None if name is None else self._recorder.records[name]

    def handle(self, op: Operation) -> bool:
        """Record the uses of weights by an operation; return whether its output has been labelled."""
        for t in op.inputs:
            self._record_bias_read(t)
        used = [(t, owner) for t in op.inputs if (owner := self.owner(t)) is not None]
        if not used:
            return False
        t, record = used[0]
        if self._copy(op, t, record):
            return True
        by_module = bool(self._stack)  # outside of all modules, nothing could gate the weight
        if by_module and len(used) == 1 and any(handler(op, t, record) for handler in self._handlers):
            return True
        for _, other in used:
            self._record_other_use(op, other)
        return False

    # -------------------------------------------------------------- kinds of use
    def _copy(self, op: Operation, t: Tensor, record: LayerRecord) -> bool:
        """Handle a copy of a weight in its memory format, which then counts as the weight."""
        out = op.first_out
        if op.name not in _COPIES or op.mutable or out is None or t.storage_offset() or out.stride() != t.stride():
            return False
        self._copies[storage_key(out)] = (StorageWeakRef(out.untyped_storage()), record.name)
        return True

    def _convolution(self, op: Operation, t: Tensor, record: LayerRecord) -> bool:
        """Handle a convolution as the layer itself would compute it."""
        if op.name != "convolution" or op.mutable or op.args[1] is not t or not _is_all_of(record.weight, t):
            return False
        if op.args[6] != (record.kind.weight_axis == 1) or op.args[8] != getattr(record.module, "groups", 1):
            return False
        x = op.args[0]
        axes = [d for d in range(x.dim()) if d != 1]
        self._recorder.record_inputs(record, self._recorder.table.join_over(self._labels(x), axes).flatten())
        self._label_output(op, record, self._recorder.atoms(record, "raw"), 1, op.args[2])
        return True

    def _matrix_product(self, op: Operation, t: Tensor, record: LayerRecord) -> bool:
        """Handle `x @ W.T`, also for a part of `W`, and for a `W` that is stored transposed."""
        if op.name not in _MATMULS or op.mutable or op.args[_MATMULS[op.name][1]] is not t:
            return False
        grid = weight_grid(t, record)
        if grid is None:
            return False
        units, features = grid
        x = op.args[_MATMULS[op.name][0]]
        labels = self._recorder.table.join_over(self._labels(x), range(x.dim() - 1)).flatten()
        self._recorder.record_inputs(record, labels, features)
        bias = op.args[0] if op.name in ("addmm", "baddbmm") else None
        self._label_output(op, record, self._recorder.atoms(record, "raw")[units], -1, bias)
        return True

    def _embedding(self, op: Operation, t: Tensor, record: LayerRecord) -> bool:
        """Handle an embedding: rows of the weight, looked up by index."""
        if op.name != _EMBEDDING or op.args[0] is not t or not _is_all_of(record.weight, t):
            return False
        if record.kind.inputs(record.module):  # its weight is used as a table, but the layer reads features
            return False
        self._recorder.record_inputs(record, constant(LIVE, (0,)))
        self._label_output(op, record, self._recorder.atoms(record, "raw"), -1, None)
        return True

    def _record_other_use(self, op: Operation, record: LayerRecord) -> None:
        """Record a use of an unknown kind, which may mix rows and columns."""
        if op.name != _EMBEDDING or record.is_target:
            self._recorder.record_mixed_weight(record)

    # -------------------------------------------------------------- uses outside the layer
    def _record_bias_read(self, t: Tensor) -> None:
        """Record a bias that is read outside its layer: it has its units' labels only if a module gates it there."""
        name = self._recorder.bias_owners.get(storage_key(t))
        if name is None or name in self._stack:
            return
        if self._stack:
            self._recorder.record_functional_use(self._recorder.records[name], self._stack[-1])
        else:
            self._recorder.store.forget([storage_key(t)])

    def _label_output(self, op: Operation, record: LayerRecord, atoms: Tensor, axis: int, bias: Tensor | None) -> None:
        """Label the output of a functional use; inside the layer's own forward, its forward hook does that."""
        out = op.first_out
        if out is None or record.name in self._stack:
            return
        self._recorder.record_functional_use(record, self._stack[-1])
        labels = expand_along(atoms, out, axis)
        if bias is not None:
            added = self._labels(bias)
            added = expand_along(added, out, axis) if added.dim() == 1 else added
            labels = self._recorder.table.join_tensors(labels, added)
        self._recorder.store.put(out, labels)

    def _labels(self, t: Tensor) -> Tensor:
        found = self._recorder.store.get(t)
        return constant(LIVE, t.shape) if found is None else found


def _is_all_of(weight: Tensor, t: Tensor) -> bool:
    """Return whether `t` is all of a weight, in the weight's own layout."""
    return t.shape == weight.shape and t.stride() == weight.stride() and not t.storage_offset()


def weight_grid(view: Tensor, record: LayerRecord) -> tuple[Tensor, Tensor] | None:
    """Return which units the columns, and which input features the rows of a view `(..., K, N)` of a weight are.

    None if the weight is no dense matrix, or the view does not take whole steps through its rows and columns.
    """
    axis = record.kind.weight_axis
    sizes = (record.units, record.kind.inputs(record.module))
    rows, row_length = sizes[axis], sizes[1 - axis]
    if not _is_dense_matrix(record.weight, rows, row_length) or not _is_one_matrix(view):
        return None
    found = _rows_and_columns(view if axis == 0 else view.mT, row_length)
    return found if found is None or axis == 0 else found[::-1]


def _is_dense_matrix(weight: Tensor, rows: int, row_length: int) -> bool:
    """Return whether a weight is stored as a contiguous matrix of this shape, at the start of its storage."""
    if tuple(weight.shape[:2]) != (rows, row_length) or weight.numel() != rows * row_length or row_length == 0:
        return False
    return weight.is_contiguous() and not weight.storage_offset()


def _is_one_matrix(view: Tensor) -> bool:
    """Return whether a view `(..., K, N)` is one matrix, at most expanded over the other dimensions."""
    return all(s == 0 or n <= 1 for s, n in zip(view.stride()[:-2], view.shape[:-2], strict=True))


def _rows_and_columns(view: Tensor, row_length: int) -> tuple[Tensor, Tensor] | None:
    """Return which rows of a stored matrix the columns of a view are, and which of its columns the rows are."""
    k, n, offset = int(view.shape[-2]), int(view.shape[-1]), int(view.storage_offset())
    step = int(view.stride(-2)) if k > 1 else 1
    jump = int(view.stride(-1)) if n > 1 else row_length
    if step < 1 or jump < row_length or jump % row_length or offset % row_length + (k - 1) * step >= row_length:
        return None
    rows, columns = torch.arange(n, device="cpu") * (jump // row_length), torch.arange(k, device="cpu") * step
    return offset // row_length + rows, offset % row_length + columns
