"""Rerun the operations after a layer for many altered copies of its output at once, without those before it."""

from __future__ import annotations

import logging
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from fgadahat_hooks.importance.attribution.attribution_batch import AttributionBatch
from fgadahat_hooks.importance.attribution.replay_record import RecordedForward, RecordedOp, TensorRef, record_forward
from fgadahat_hooks.importance.attribution.replay_segment import NotReplayable, Segment
from fgadahat_hooks.importance.attribution.replay_substitutes import SUBSTITUTES

T = TypeVar("T")
Alter = Callable[[int, Tensor, Any], Tensor]
"""Takes the index of a layer's call, its output and one row; returns the altered output."""

_log = logging.getLogger(__name__)


class Rerun(ABC):
    """Computes the scores that follow from altered outputs of one layer."""

    @abstractmethod
    def scores(self, alter: Alter, rows: Any) -> Tensor:
        """Return the scores for each row, `(rows, batch)`, differentiable by the rows.

        Args:
            alter: Makes the altered output of a call from a row.
            rows: A tensor, or a list of tensors, whose first axes count the rows.
        """

    @abstractmethod
    def rows_within(self, memory: float, *, grad: bool) -> int:
        """Return how many rows at once fit into `memory` bytes, at least one."""


class FullForward(Rerun):
    """Runs the whole model for each row: correct for every model, but slow."""

    def __init__(self, batch: AttributionBatch, layer: str) -> None:
        """Take the layer whose output is altered."""
        self._batch = batch
        self._layer = layer

    def scores(self, alter: Alter, rows: Any) -> Tensor:
        """Return the scores for each row, `(rows, batch)`."""
        count = len(pytree.tree_leaves(rows)[0])
        return torch.stack([self._scores_of(alter, pytree.tree_map(lambda t, k=k: t[k], rows)) for k in range(count)])

    def _scores_of(self, alter: Alter, row: Any) -> Tensor:
        def edit(layer: str, call: int, value: Tensor) -> Tensor:
            return alter(call, value, row).clone() if layer == self._layer else value  # the model may write into it

        return self._batch.run_on(self._batch.inputs(), grad=torch.is_grad_enabled(), edit=edit).scores

    def rows_within(self, memory: float, *, grad: bool) -> int:
        """Return 1."""
        return 1


class Replay(Rerun):
    """Reruns the operations between the layer and the scores; everything else comes from the recorded forward."""

    def __init__(self, recorded: RecordedForward, segment: Segment) -> None:
        """Take the recorded forward and the operations to rerun."""
        self._recorded = recorded
        self._segment = segment

    def scores(self, alter: Alter, rows: Any) -> Tensor:
        """Return the scores for each row, `(rows, batch)`."""
        if not self._segment.ops:
            return self._recorded.values[self._recorded.scores].expand(len(pytree.tree_leaves(rows)[0]), -1)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "There is a performance drop")  # an operation without a batched form
            found: Tensor = torch.vmap(lambda row: self._run(alter, row))(rows)
        return found

    def _run(self, alter: Alter, row: Any) -> Tensor:
        """Run the segment's operations in order for one row; return the scores, `(batch,)`."""
        computed: dict[int, Tensor] = {}
        for number in self._segment.ops:
            op = self._recorded.ops[number]
            args, kwargs = self._arguments(op, computed)
            if number in self._segment.layer_calls:
                result = alter(self._segment.layer_calls[number], args[0], row)
            elif op.func in SUBSTITUTES:
                result = SUBSTITUTES[op.func](op.func, *args, **kwargs)
            else:
                result = op.func(*args, **kwargs)
            outputs = zip(op.outputs, pytree.tree_leaves(result), strict=False)
            computed.update((o, v) for o, v in outputs if o is not None)
            del args, kwargs, result, outputs
            for value in self._segment.freed_after.get(number, ()):
                computed.pop(value, None)
        return computed[self._recorded.scores]

    def _arguments(self, op: RecordedOp, computed: dict[int, Tensor]) -> tuple[Any, Any]:
        """Return an operation's arguments: tensors computed in this rerun where there are, else recorded ones."""
        look_up = lambda ref: (  # noqa: E731
            computed[ref.index] if ref.index in computed else self._recorded.values[ref.index]
        )
        filled: tuple[Any, Any] = pytree.tree_map_only(TensorRef, look_up, (op.args, op.kwargs))
        return filled

    def rows_within(self, memory: float, *, grad: bool) -> int:
        """Return how many rows at once fit into `memory` bytes, at least one."""
        each = self._segment.peak_bytes + (self._segment.total_bytes if grad else 0)
        return max(1, int(memory // max(1, each)))


class LayerReruns:
    """Reruns for every layer of a batch, from one recorded forward where that is possible.

    Full forwards are run for what is not a fixed list of operations: control flow that depends on values, random
    numbers, and whatever torch cannot record.

    Attributes:
        recorded: Whether there is a recorded forward.
    """

    def __init__(self, batch: AttributionBatch, *, grad: bool, full_forward: Collection[str] = ()) -> None:
        """Record the model on the batch.

        Args:
            batch: The model and the batch.
            grad: Whether gradients will be needed.
            full_forward: Layers for which full forwards are to be run.
        """
        self._batch = batch
        self._replays: dict[str, Replay] = {}
        self.recorded = False
        if set(batch.sites) <= set(full_forward):
            return
        try:
            self._build_replays(record_forward(batch), grad, full_forward)
            self.recorded = True
        except Exception as error:  # anything: a full forward raises an error of the model itself again
            _log.info("The forward could not be recorded, so that whole forwards are run: %s", error)

    def _build_replays(self, recorded: RecordedForward, grad: bool, full_forward: Collection[str]) -> None:
        """Build the replay of each layer, and free the recorded values that none of them needs."""
        needed: set[int] = set()
        for layer in self._batch.sites:
            if layer in full_forward:
                continue
            try:
                segment = Segment(recorded, layer, grad=grad)
            except NotReplayable as error:
                _log.info("Whole forwards are run for layer '%s': %s.", layer, error)
                continue
            self._replays[layer] = Replay(recorded, segment)
            needed |= segment.needed
        recorded.values = {number: value for number, value in recorded.values.items() if number in needed}

    def run(self, layer: str, work: Callable[[Rerun], T]) -> T:
        """Return `work(rerun)` for a layer; if it fails with the replay, start over with full forwards."""
        if layer in self._replays:
            try:
                return work(self._replays[layer])
            except Exception as error:  # anything: an operation that cannot run on several copies, memory
                _log.info("Whole forwards are run for layer '%s': %s", layer, error)
        return work(FullForward(self._batch, layer))
