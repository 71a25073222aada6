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
from fgadahat_hooks.hooks import HookSet
from fgadahat_hooks.progress import NO_BAR, Bar
from fgadahat_hooks.random_states import random_state, set_random_state
from fgadahat_hooks.runtime import Runtime
from fgadahat_hooks.state import TaskId, TaskRecord, TaskState
from fgadahat_hooks.task_tensors import TaskTensors
from fgadahat_hooks.tracing.forward import output_tensors, own_copy, run_example, untouched

Logits = dict[TaskId, list[Tensor]]


def scratch_of(runtime: Runtime, callbacks: Iterable[Callback] = ()) -> Runtime:
    """Return a runtime over a deep copy of the model, its gates and its records; the user's stays untouched.

    Args:
        runtime: The attached model.
        callbacks: What acts on the copy, which has none of the user's own.
    """
    memo: dict[int, Any] = {id(t): t.detach().clone() for t in results(runtime.model)}
    model = copy.deepcopy(runtime.model, memo)
    gates = {name: memo[id(gate)] for name, gate in runtime.gates.items()}
    context = next(iter(gates.values())).context if gates else copy.deepcopy(runtime.gate_context)
    records = {t: TaskRecord(r.masks, dict(r.tensors), r.importance) for t, r in runtime.state.records.items()}
    scratch = Runtime(model, runtime.spec, gates, context, CallbackList(callbacks), HookSet())
    scratch.state = TaskState(records, runtime.state.summed_importance)
    scratch.graph, scratch.policies, scratch.traced = runtime.graph, runtime.policies, True
    scratch.tensors = TaskTensors(model, runtime.tensors.names)
    scratch.initial, scratch.frozen = dict(runtime.initial), list(runtime.frozen)
    scratch.num_classes = runtime.num_classes
    scratch.tied = {id(memo[tied]) for tied in runtime.tied if tied in memo}
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


def logits(scratch: Runtime, inputs: Any, bar: Bar = NO_BAR) -> Logits:
    """Return what every finished task puts out, in evaluation mode; each is a step of the bar."""
    out: Logits = {}
    with seeded(), untouched(scratch.model):
        for task in scratch.state.records:
            with scratch.using(task):
                found = output_tensors(run_example(scratch.model, own_copy(inputs)))
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
