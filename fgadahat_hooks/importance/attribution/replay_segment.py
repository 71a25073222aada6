"""The operations of a recorded forward between a layer and the scores, and the memory that rerunning them takes."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property

import torch

from fgadahat_hooks.importance.attribution.replay_record import RecordedForward, RecordedOp, StorageSize


class NotReplayable(Exception):  # noqa: N818 - says what a forward is, and never reaches a user
    """The forward depends on the layer's output in ways that the recorded operations do not show."""


class Segment:
    """The operations between one layer and the scores.

    Attributes:
        layer_calls: For each operation that passes the layer's output on, the index of the layer's call.
        ops: Numbers of the operations, in order.
        needed: Numbers of the tensors that these operations read but do not compute.
        freed_after: For an operation, the tensors that nothing after it reads.
    """

    def __init__(self, recorded: RecordedForward, layer: str, *, grad: bool) -> None:
        """Find the operations.

        Args:
            recorded: The recorded forward.
            layer: Name of the layer.
            grad: Whether gradients will be needed.

        Raises:
            NotReplayable: One of them cannot be rerun on its own.
        """
        self._recorded = recorded
        self.layer_calls = {number: call for call, number in enumerate(recorded.layer_calls.get(layer, ()))}
        self.ops = self._find(grad)
        computed = {output for op in self._each() for output in op.outputs}
        self.needed = {read for op in self._each() for read in op.inputs if read not in computed} | {recorded.scores}
        self.freed_after = self._last_uses()

    def _each(self) -> Iterable[RecordedOp]:
        return (self._recorded.ops[number] for number in self.ops)

    # ---------------------------------------------------------------- finding
    def _find(self, grad: bool) -> list[int]:
        """Return the operations that depend on the layer and that the scores depend on."""
        found, wanted = [], {self._recorded.scores}
        for number in reversed(self._dependent()):
            op = self._recorded.ops[number]
            if not wanted.isdisjoint(op.outputs):
                self._refuse_unless_repeatable(number, grad)
                found.append(number)
                wanted.update(op.inputs)
        return found[::-1]

    def _dependent(self) -> list[int]:
        """Return the operations that depend on the layer, in order."""
        dependent: list[int] = []
        altered: set[int | None] = set()
        for number, op in enumerate(self._recorded.ops):
            reads_altered = not altered.isdisjoint(op.inputs)
            if reads_altered:
                _refuse_unless_pure(op)
            if reads_altered or number in self.layer_calls:
                dependent.append(number)
                altered.update(op.outputs)
        return dependent

    def _refuse_unless_repeatable(self, number: int, grad: bool) -> None:
        op, recorded = self._recorded.ops[number], self._recorded
        if torch.Tag.nondeterministic_seeded in op.func.tags:
            raise NotReplayable(f"{op.func} draws random numbers")
        if grad and not op.grad_enabled:
            raise NotReplayable(f"{op.func} ran without gradients")
        if any(recorded.last_write.get(recorded.sizes[read].storage, -1) > number for read in op.inputs):
            raise NotReplayable(f"what {op.func} reads was overwritten later")

    # ---------------------------------------------------------------- memory
    def _last_uses(self) -> dict[int, list[int]]:
        last = {value: number for number in self.ops for value in _tensors(self._recorded.ops[number])}
        last.pop(self._recorded.scores, None)
        freed_after: dict[int, list[int]] = {}
        for value, number in last.items():
            freed_after.setdefault(number, []).append(value)
        return freed_after

    @cached_property
    def peak_bytes(self) -> int:
        """Largest number of bytes that computed tensors occupy at the same time."""
        first, last = self._lifetimes()
        changes = [(number, 0, size.size) for size, number in first.items()]
        changes += [(last[size], 1, -size.size) for size in first]
        alive = most = 0
        for _, _, change in sorted(changes):
            alive += change
            most = max(most, alive)
        return most

    def _lifetimes(self) -> tuple[dict[StorageSize, int], dict[StorageSize, int]]:
        """Return the operations that allocate each storage, and those that use it last."""
        sizes = self._recorded.sizes
        first: dict[StorageSize, int] = {}
        last: dict[StorageSize, int] = {}
        for number in self.ops:
            for value in self._recorded.ops[number].outputs:
                if value is not None:
                    first.setdefault(sizes[value], number)
            for value in _tensors(self._recorded.ops[number]):
                last[sizes[value]] = number
        return first, last

    @cached_property
    def total_bytes(self) -> int:
        """Bytes of all computed tensors, which a backward keeps."""
        sizes = self._recorded.sizes
        return sum(s.size for s in {sizes[v] for op in self._each() for v in op.outputs if v is not None})


def _refuse_unless_pure(op: RecordedOp) -> None:
    if op.func._schema.is_mutable:
        raise NotReplayable(f"{op.func} writes in place")
    tags = {torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape}
    if not tags.isdisjoint(op.func.tags) or any(output is None for output in op.outputs) or not op.outputs:
        raise NotReplayable(f"{op.func} lets the flow depend on numbers")


def _tensors(op: RecordedOp) -> Iterable[int]:
    return (*op.inputs, *(output for output in op.outputs if output is not None))
