"""A copy of an attached model to try things on, and the logits of its finished tasks."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from fgadahat_hooks.callbacks.base import Callback, CallbackList
from fgadahat_hooks.export.plain import results
from fgadahat_hooks.gates.attached_model import AttachedModel
from fgadahat_hooks.gates.task_state import TaskId, TaskRecord, TaskState
from fgadahat_hooks.gates.task_tensors import TaskTensors
from fgadahat_hooks.graph.tracing.forward import output_tensors, own_copy, run_example, untouched
from fgadahat_hooks.hooks import HookSet
from fgadahat_hooks.progress import NO_BAR, Bar
from fgadahat_hooks.tasks.random_states import random_state, set_random_state
from fgadahat_hooks.tasks.sequence import TaskSequence

Logits = dict[TaskId, list[Tensor]]


def scratch_of(sequence: TaskSequence, callbacks: Iterable[Callback] = ()) -> TaskSequence:
    """Return the same tasks over a deep copy of the model, its gates and its records; the user's stay untouched.

    Args:
        sequence: The attached model and its tasks.
        callbacks: What acts on the copy, which has none of the user's own.
    """
    attached, state = sequence.attached, sequence.state
    records = {t: TaskRecord(r.masks, dict(r.tensors), r.importance) for t, r in state.records.items()}
    copied = TaskState(records, state.summed_importance, list(state.frozen))
    return TaskSequence(_copy_of(attached), CallbackList(callbacks), copied)


def _copy_of(attached: AttachedModel) -> AttachedModel:
    memo: dict[int, Any] = {id(t): t.detach().clone() for t in results(attached.model)}
    model = copy.deepcopy(attached.model, memo)
    gates = {name: memo[id(gate)] for name, gate in attached.gates.items()}
    context = next(iter(gates.values())).context if gates else copy.deepcopy(attached.gate_context)
    scratch = AttachedModel(model, attached.spec, gates, context, HookSet(), attached.graph, attached.policies)
    scratch.tensors = TaskTensors(model, attached.tensors.names)
    scratch.initial, scratch.num_classes, scratch.traced = dict(attached.initial), attached.num_classes, True
    scratch.tied = {id(memo[tied]) for tied in attached.tied if tied in memo}
    return scratch


@contextmanager
def seeded() -> Iterator[None]:
    """Run the block with random numbers that are the same each time, and put all generators back."""
    before = random_state()
    try:
        torch.manual_seed(0)
        yield
    finally:
        set_random_state(before)


def logits(scratch: TaskSequence, inputs: Any, bar: Bar = NO_BAR) -> Logits:
    """Return what every finished task puts out, in evaluation mode; each is a step of the bar."""
    out: Logits = {}
    with seeded(), untouched(scratch.attached.model):
        for task in scratch.state.records:
            with scratch.using(task):
                found = output_tensors(run_example(scratch.attached.model, own_copy(inputs)))
                out[task] = [t.clone() for t in found]
            bar.advance()
    return out


def changed(before: Logits, after: Logits) -> tuple[TaskId, ...]:
    """Return the tasks whose logits are not the same bits."""
    return tuple(
        task
        for task, tensors in before.items()
        if not all(torch.equal(a, b) for a, b in zip(tensors, after[task], strict=True))
    )
