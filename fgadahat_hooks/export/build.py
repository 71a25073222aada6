"""From an attached model and a finished task to a plain module."""

from __future__ import annotations

from contextlib import AbstractContextManager

from torch import nn

from fgadahat_hooks.errors import BadCallError
from fgadahat_hooks.export.bake import bake
from fgadahat_hooks.export.check import outputs, refuse_changed
from fgadahat_hooks.export.compact import compacted
from fgadahat_hooks.export.plain import plain_copy
from fgadahat_hooks.export.report import ExportReport
from fgadahat_hooks.gates.attached_model import AttachedModel
from fgadahat_hooks.gates.task_state import TaskId, TaskRecord
from fgadahat_hooks.gates.task_tensors import TaskTensors
from fgadahat_hooks.graph.tracing.forward import ExampleInputs


def export(
    attached: AttachedModel,
    task: TaskId,
    record: TaskRecord,
    alone: AbstractContextManager[None],
    using: AbstractContextManager[None],
    inputs: ExampleInputs | None = None,
    *,
    compact: bool = False,
) -> tuple[nn.Module, ExportReport | None]:
    """Return a plain copy of the model that computes what it computes as a finished task; see `Session.export`.

    Args:
        attached: The attached model.
        task: Id of a finished task.
        record: What that task left.
        alone: Runs a block in which no other thread has a task's tensors in the model.
        using: Runs a block as that task.
        inputs: Inputs to compare both on; those of the trace when left out.
        compact: Whether to remove dead units.

    Returns:
        The copy, and what was removed if it is compact.

    Raises:
        BadCallError: There are no inputs to compare on.
        ExportError: The copy would give other outputs.
    """
    inputs = attached.example_inputs if inputs is None else inputs
    if inputs is None:
        raise BadCallError("Expected `inputs`: the model was attached without example inputs.")
    with alone:
        made = plain_copy(attached.model)
    TaskTensors(made, []).enter(record.tensors, copy=True)
    bake(made, attached.graph, record.masks)
    with using:
        expected = outputs(attached.model, inputs)
    refuse_changed(task, made, attached.graph, expected, outputs(made, inputs))
    if not compact:
        return made, None
    return compacted(made, attached.graph, record.masks, inputs)
