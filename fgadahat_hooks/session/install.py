"""Set up an attached model after its trace: gates, the protection of tensors, and the watch for execution paths."""

from __future__ import annotations

from typing import Any

from fgadahat_hooks.gates.attached_model import AttachedModel
from fgadahat_hooks.gates.class_counts import find_class_counts
from fgadahat_hooks.gates.install import activate_gates
from fgadahat_hooks.gates.task_tensors import TaskTensors
from fgadahat_hooks.graph.policy import classify
from fgadahat_hooks.graph.unit_graph import UnitGraph
from fgadahat_hooks.protection.frozen_norm import freeze_norms
from fgadahat_hooks.protection.head_outputs import count_outputs
from fgadahat_hooks.protection.head_size_on_load import resize_heads_on_load
from fgadahat_hooks.protection.head_values import tied_parameters, undrawn_parameters
from fgadahat_hooks.protection.late_comers import heads_of
from fgadahat_hooks.protection.plain_attributes import plain_state
from fgadahat_hooks.spec.attach_spec import PlasticitySpec
from fgadahat_hooks.tasks.rescaling import row_norms
from fgadahat_hooks.tasks.sequence import TaskSequence


def install(sequence: TaskSequence, graph: UnitGraph, example_inputs: Any) -> None:
    """Activate the gates of an attached model, and set up what protects its other tensors.

    Args:
        sequence: The tasks of a model whose gates do nothing yet.
        graph: The unit graph that the trace found.
        example_inputs: Inputs that the model was traced with.
    """
    attached = sequence.attached
    activate_gates(attached, graph)
    attached.graph, attached.example_inputs, attached.traced = graph, example_inputs, True
    _classify_tensors(attached)
    attached.plain_state = plain_state(attached.model)
    attached.row_norms = row_norms(attached) if _needs_row_norms(attached.spec.plasticity) else {}
    sequence.watch_branches()
    resize_heads_on_load(attached)
    if attached.spec.norms == "freeze":
        freeze_norms(sequence)


def _needs_row_norms(spec: PlasticitySpec) -> bool:
    return spec.rescale or spec.learning_rates == "by_share"


def _classify_tensors(attached: AttachedModel) -> None:
    """Set how each tensor is protected, and which tensors every task has its own copy of."""
    model, graph = attached.model, attached.graph
    attached.policies = classify(model, graph, attached.spec)
    per_task = [policy for policy in attached.policies if policy.protection == "per_task"]
    attached.tensors = TaskTensors(model, [policy.name for policy in per_task])
    undrawn = {*graph.head_parameters, *undrawn_parameters(model, graph.heads)}
    restored = [policy.name for policy in per_task if policy.role in ("norm", "gain") or policy.name in undrawn]
    attached.initial = TaskTensors(model, restored).copy()
    attached.head_modules = dict(heads_of(attached))
    attached.tied = tied_parameters(model, graph.heads)
    attached.outputs = count_outputs(model, graph.heads)
    attached.tensors.class_counts = find_class_counts(model, attached.outputs)
