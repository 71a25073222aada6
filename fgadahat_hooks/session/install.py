"""From a trace to a model whose gates act, whose tensors are classified and whose forwards are watched."""

from __future__ import annotations

from typing import Any

from fgadahat_hooks.gates.attached_model import AttachedModel
from fgadahat_hooks.gates.install import activate_gates
from fgadahat_hooks.gates.task_tensors import TaskTensors
from fgadahat_hooks.graph.policy import classify
from fgadahat_hooks.graph.unit_graph import UnitGraph
from fgadahat_hooks.protection.frozen_norm import freeze_norms
from fgadahat_hooks.protection.heads import count_outputs, size_on_load, tied_parameters
from fgadahat_hooks.tasks.sequence import TaskSequence


def install(sequence: TaskSequence, graph: UnitGraph, example_inputs: Any) -> None:
    """Put the gates of an attached model to work, and set up what protects its other tensors.

    Args:
        sequence: The model with gates that do nothing yet.
        graph: What the trace found.
        example_inputs: What the model was traced with.
    """
    attached = sequence.attached
    activate_gates(attached, graph)
    attached.graph, attached.example_inputs, attached.traced = graph, example_inputs, True
    _classify_tensors(attached)
    sequence.watch_branches()
    size_on_load(attached)
    if attached.spec.norms == "freeze":
        freeze_norms(attached, sequence.state)


def _classify_tensors(attached: AttachedModel) -> None:
    model, graph = attached.model, attached.graph
    attached.policies = classify(model, graph, attached.spec)
    per_task = [policy for policy in attached.policies if policy.protection == "per_task"]
    attached.tensors = TaskTensors(model, [policy.name for policy in per_task])
    attached.initial = TaskTensors(model, [policy.name for policy in per_task if policy.role == "norm"]).copy()
    attached.tied = tied_parameters(model, graph.heads)
    attached.num_classes = count_outputs(model, graph.heads, graph.auxiliary)
