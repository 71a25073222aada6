"""Batches whose samples belong to different finished tasks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils import _pytree as pytree

from fgadahat_hooks.errors import BadCallError
from fgadahat_hooks.gates.sites import fold_enter, fold_leave
from fgadahat_hooks.gates.task_state import TaskId
from fgadahat_hooks.hooks import HookSet
from fgadahat_hooks.tasks.sequence import TaskSequence


@contextmanager
def using_each(sequence: TaskSequence, tasks: Sequence[TaskId]) -> Iterator[None]:
    """Run the block with one task id per sample of the batch.

    The model runs once for each distinct task on the whole batch, and each sample's rows are taken from its own task's
    run: bit-equal to `using` each task on that batch, on every model, whatever its layers do with the batch axis.
    Outputs of heads narrower than the widest are padded with `-inf`.
    """
    distinct = list(dict.fromkeys(tasks))
    for task in distinct:
        sequence.state.record(task)
    with sequence.using(distinct[0]), HookSet.temporary() as hooks:
        hooks.forward(sequence.attached.model, _MergeTasks(sequence, list(tasks), distinct), first=True, kwargs=True)
        yield


class _MergeTasks:
    """Forward hook of the model, before all others: runs the other tasks and merges the rows.

    It calls `model.forward`, so that the model's other hooks run once: pre-hooks before, forward hooks on the merged
    output. Gates folded into parameters that the model itself uses are therefore folded here.
    """

    def __init__(self, sequence: TaskSequence, tasks: list[TaskId], distinct: list[TaskId]) -> None:
        self._sequence = sequence
        self._tasks = tasks
        self._distinct = distinct

    def __call__(self, model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
        self._check_batch_size((args, kwargs))
        for task in self._distinct[1:]:
            with self._sequence.using(task), self._folded_root(model):
                if self._sequence.branches is not None:
                    self._sequence.branches.begin(model)
                other = model.forward(*args, **kwargs)
            rows = torch.tensor([t == task for t in self._tasks])
            output = _take_rows(output, other, rows)
        return output

    @contextmanager
    def _folded_root(self, model: nn.Module) -> Iterator[None]:
        layers = self._sequence.attached.graph.layers.values()
        if not any("" in layer.sites and layer.position == "weight" for layer in layers):
            yield
            return
        fold_enter(model, ())
        try:
            yield
        finally:
            fold_leave(model, (), None)

    def _check_batch_size(self, inputs: Any) -> None:
        sizes = [t.shape[0] for t in pytree.tree_leaves(inputs) if isinstance(t, Tensor) and t.dim() > 0]
        if sizes and sizes[0] != len(self._tasks):
            raise BadCallError(
                f"Expected one task id for each of the {sizes[0]} samples of the batch, but session.use got "
                f"{len(self._tasks)}. Give a list as long as the batch."
            )


def _take_rows(output: Any, other: Any, rows: Tensor) -> Any:
    """Replace the rows where `rows` is True by those of `other`, in every tensor that has one row a sample."""
    leaves, spec = pytree.tree_flatten(output)
    others = pytree.tree_leaves(other)
    return pytree.tree_unflatten([_merge_rows(a, b, rows) for a, b in zip(leaves, others, strict=True)], spec)


def _merge_rows(a: Any, b: Any, rows: Tensor) -> Any:
    if not isinstance(a, Tensor) or a.dim() == 0 or a.shape[0] != len(rows):
        return a
    if a.shape != b.shape and a.shape[:-1] == b.shape[:-1] and a.is_floating_point():
        width = max(a.shape[-1], b.shape[-1])
        a, b = (F.pad(t, (0, width - t.shape[-1]), value=float("-inf")) for t in (a, b))
    return torch.where(rows.to(a.device).view(-1, *[1] * (a.dim() - 1)), b, a)
