"""A scratch copy of an attached model, and the logits of its finished tasks."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from fgadahat_hooks.callbacks.base import Callback, CallbackList
from fgadahat_hooks.export.plain import non_leaf_tensors
from fgadahat_hooks.gates.attached_model import AttachedModel
from fgadahat_hooks.gates.task_state import TaskId, TaskRecord, TaskState
from fgadahat_hooks.gates.task_tensors import TaskTensors
from fgadahat_hooks.graph.tracing.forward import copy_inputs, isolated_evaluation, output_tensors, run_example
from fgadahat_hooks.hooks import HookSet
from fgadahat_hooks.progress import NO_BAR, Bar
from fgadahat_hooks.tasks.random_states import random_state, set_random_state
from fgadahat_hooks.tasks.sequence import TaskSequence

Logits = dict[TaskId, list[Tensor]]


def scratch_copy(sequence: TaskSequence, callbacks: Iterable[Callback] = ()) -> TaskSequence:
    """Return the same tasks over a deep copy of the model, its gates and its records; the originals are not changed.

    Args:
        sequence: The attached model and its tasks.
        callbacks: Callbacks of the copy, which gets no others.
    """
    attached, state = sequence.attached, sequence.state
    records = {t: TaskRecord(r.masks, dict(r.tensors), r.importance) for t, r in state.records.items()}
    copied = TaskState(records, state.summed_importance, list(state.frozen))
    return TaskSequence(_copy_attached(attached), CallbackList(callbacks), copied)


def _copy_attached(attached: AttachedModel) -> AttachedModel:
    memo: dict[int, Any] = {id(t): t.detach().clone() for t in non_leaf_tensors(attached.model)}
    model = copy.deepcopy(attached.model, memo)
    gates = {name: memo[id(gate)] for name, gate in attached.gates.items()}
    context = next(iter(gates.values())).context if gates else copy.deepcopy(attached.gate_context)
    scratch = AttachedModel(model, attached.spec, gates, context, HookSet(), attached.graph, attached.policies)
    scratch.tensors = TaskTensors(model, attached.tensors.names)
    scratch.tensors.class_counts = attached.tensors.class_counts
    scratch.initial, scratch.outputs, scratch.traced = dict(attached.initial), dict(attached.outputs), True
    scratch.row_norms, scratch.begun = dict(attached.row_norms), attached.begun
    scratch.tied = {id(memo[tied]) for tied in attached.tied if tied in memo}
    return scratch


@contextmanager
def seeded() -> Iterator[None]:
    """Run the block with the same random numbers each time; all generators are restored after it."""
    before = random_state()
    try:
        torch.manual_seed(0)
        yield
    finally:
        set_random_state(before)


def task_logits(scratch: TaskSequence, inputs: Any, bar: Bar = NO_BAR, tasks: Iterable[TaskId] | None = None) -> Logits:
    """Return the outputs of finished tasks, all unless told which, in evaluation mode; each task advances the bar."""
    logits: Logits = {}
    with seeded(), isolated_evaluation(scratch.attached.model):
        for task in scratch.state.records if tasks is None else tasks:
            with scratch.using(task):
                outputs = output_tensors(run_example(scratch.attached.model, copy_inputs(inputs)))
                logits[task] = [t.clone() for t in outputs]
            bar.advance()
    return logits


def changed_tasks(before: Logits, after: Logits) -> tuple[TaskId, ...]:
    """Return the tasks whose logits are not bit-identical; NaN equals NaN."""
    return tuple(
        task
        for task, tensors in before.items()
        if not all(_identical(a, b) for a, b in zip(tensors, after[task], strict=True))
    )


def _identical(a: Tensor, b: Tensor) -> bool:
    if torch.equal(a, b):
        return True
    return a.shape == b.shape and bool(((a == b) | ((a != a) & (b != b))).all())


def overflown(logits: Logits) -> tuple[TaskId, ...]:
    """Return the tasks with NaN among their logits, or with more infinite ones than finite: a leak hides in these.

    A few infinities are what some models give on purpose, for answers that are not allowed.
    """
    return tuple(task for task, tensors in logits.items() if any(map(_hides_leaks, tensors)))


def _hides_leaks(outputs: Tensor) -> bool:
    if not outputs.is_floating_point() or not outputs.numel():
        return False
    return bool(outputs.isnan().any()) or int(outputs.isinf().sum()) * 2 > outputs.numel()
