"""The export of a finished task: copy the model, write the masks into it, compare, and remove units if asked."""

from __future__ import annotations

from contextlib import AbstractContextManager

from torch import nn

from fgadahat_hooks.errors import BadCallError
from fgadahat_hooks.export.bake import bake
from fgadahat_hooks.export.bake_gains import bake_gains, without_gains
from fgadahat_hooks.export.check import outputs, require_equal_outputs
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
    exclusive: AbstractContextManager[None],
    using: AbstractContextManager[None],
    inputs: ExampleInputs | None = None,
    *,
    compact: bool = False,
) -> tuple[nn.Module, ExportReport | None]:
    """Return a plain copy of the model with the outputs of a finished task; see `Session.export`.

    Args:
        attached: The attached model.
        task: Id of a finished task.
        record: Masks and stored tensors of that task.
        exclusive: Runs a block while no other thread has a task's tensors in the model.
        using: Runs a block with that task's masks and tensors in the model.
        inputs: Inputs to compare both on; the example inputs of the trace when left out.
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
    with exclusive:
        plain = plain_copy(attached.model)
    tensors = TaskTensors(plain, [])
    tensors.class_counts = attached.tensors.class_counts
    tensors.enter(without_gains(record.tensors), copy=True)
    bake_gains(plain, attached.graph, record.tensors)
    bake(plain, attached.graph, record.masks)
    with using:
        expected = outputs(attached.model, inputs)
    require_equal_outputs(task, plain, attached.graph, expected, outputs(plain, inputs))
    if not compact:
        return plain, None
    return compacted(plain, attached.graph, record.masks, inputs)
