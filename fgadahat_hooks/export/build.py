"""From an attached model and a finished task to a plain module."""

from __future__ import annotations

from torch import nn

from fgadahat_hooks.errors import BadCallError, TaskRunningError
from fgadahat_hooks.export.bake import bake
from fgadahat_hooks.export.check import outputs, refuse_changed
from fgadahat_hooks.export.compact import compacted
from fgadahat_hooks.export.plain import plain_copy
from fgadahat_hooks.export.report import ExportReport
from fgadahat_hooks.runtime import Runtime
from fgadahat_hooks.state import TaskId
from fgadahat_hooks.task_tensors import TaskTensors
from fgadahat_hooks.tracing.forward import ExampleInputs


def export(
    runtime: Runtime, task: TaskId, inputs: ExampleInputs | None = None, *, compact: bool = False
) -> tuple[nn.Module, ExportReport | None]:
    """Return a plain copy of the model that computes what it computes as a finished task; see `Session.export`.

    Args:
        runtime: The attached model.
        task: Id of a finished task.
        inputs: Inputs to compare both on; those of the trace when left out.
        compact: Whether to remove dead units.

    Returns:
        The copy, and what was removed if it is compact.

    Raises:
        TaskRunningError: The task has not ended.
        UnknownTaskError: No task of that id is finished.
        ExportError: The copy would give other outputs.
    """
    current = runtime.task or runtime.interrupted
    if current is not None and current.id == task:
        raise TaskRunningError(f"Task {task!r} has not ended. End its block, then export it.")
    record = runtime.record(task)
    inputs = runtime.example_inputs if inputs is None else inputs
    if inputs is None:
        raise BadCallError("Expected `inputs`: the model was attached without example inputs.")
    with runtime.alone():  # no other thread has a task's tensors in the model
        made = plain_copy(runtime.model)
    TaskTensors(made, []).put(record.tensors, copy=True)
    bake(made, runtime.graph, record.masks)
    with runtime.using(task):
        expected = outputs(runtime.model, inputs)
    refuse_changed(task, made, runtime.graph, expected, outputs(made, inputs))
    if not compact:
        return made, None
    return compacted(made, runtime.graph, record.masks, inputs)
