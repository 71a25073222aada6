"""What is kept across tasks: masks, importances and per-task copies of tensors."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from fgadahat_hooks.errors import UnknownTaskError
from fgadahat_hooks.gates.kept_weights import KeptWeights
from fgadahat_hooks.graph.unit_graph import UnitGraph
from fgadahat_hooks.registry import suggest

STATE_VERSION = 1

TaskId = Hashable
NumClasses = int | Mapping[str, int]
"""Outputs of the heads that a task asks for: of all that count classes, or of each by name."""


@dataclass
class TaskRecord:
    """The record of one finished task.

    Attributes:
        masks: Binary mask of each gated layer, `(units,)` bool.
        tensors: Copies of the per-task tensors (heads, norms), by qualified name.
        importance: Importance of each layer's units for this task, `(units,)`; empty without an importance callback.
        num_classes: Numbers of outputs of the heads, if the task set them.
        notes: What a user should know of how the task went, a sentence each.
        reuse: Of each layer that reads gated units, the share of its signal that comes from units of earlier tasks.
    """

    masks: dict[str, Tensor]
    tensors: dict[str, Tensor] = field(default_factory=dict)
    importance: dict[str, Tensor] = field(default_factory=dict)
    num_classes: NumClasses | None = None
    notes: list[str] = field(default_factory=list)
    reuse: dict[str, float] = field(default_factory=dict)


@dataclass
class InterruptedTask:
    """What an unfinished task needs to resume, beside the values of the model.

    Attributes:
        id: The task's id.
        num_classes: Numbers of outputs of the heads, if the task set them.
        scale: Gate scale `s` of the last batch.
        annealed: Whether the scale was ever set in the task.
        steps: Number of real optimizer steps.
        tensors: Per-task tensors as they were before the task, by qualified name.
        embeddings: Task embeddings as they were before the task, by layer.
        callbacks: State of each callback that has one, by its key.
        inputs: What the model was called with last, as `{"args": [...], "kwargs": {...}}`, the latest last; None or
            empty if there is none.
        length: Length of the task and its place in it, as `TaskLength` has them; empty if the length is not known.
        travel: Sum of the task embeddings' learning rates over the steps; None where a step is not bounded by it.
        inputs_missing: Why a state cannot hold `inputs`; empty if it can.
    """

    id: TaskId
    num_classes: NumClasses | None
    scale: float
    annealed: bool
    steps: int
    tensors: dict[str, Tensor]
    embeddings: dict[str, Tensor]
    callbacks: dict[str, dict[str, Any]]
    inputs: list[dict[str, Any]] | None = None
    length: dict[str, int] = field(default_factory=dict)
    travel: float | None = 0.0
    inputs_missing: str = ""


@dataclass
class TaskState:
    """All finished tasks in the order in which they were learnt, and what is computed from them.

    Attributes:
        records: One record per finished task.
        summed_importance: Importance summed over tasks by the summation strategy, `(units,)` per layer.
        frozen: Names of the parameters that keep their values from the end of the first task; empty before it.
        kept: The exact values that finished tasks read; never saved, taken from the model at the first need.
        watched: Whether writes outside of protected steps are put back; the proof of an optimizer alone goes without.
    """

    records: dict[TaskId, TaskRecord] = field(default_factory=dict)
    summed_importance: dict[str, Tensor] = field(default_factory=dict)
    frozen: list[str] = field(default_factory=list)
    kept: KeptWeights | None = None
    watched: bool = True

    @property
    def finished(self) -> int:
        """Number of finished tasks, `T`."""
        return len(self.records)

    def record(self, task: TaskId) -> TaskRecord:
        """Return the record of a finished task.

        Raises:
            UnknownTaskError: No task with that id is finished.
        """
        try:
            found = self.records.get(task)
        except TypeError:
            found = None
        if found is None:
            known = list(self.records)
            hint = suggest(task, [t for t in known if isinstance(t, str)])
            raise UnknownTaskError(
                f"Expected the id of a finished task, but got {task!r}.{hint} "
                + (f"Finished tasks: {', '.join(map(repr, known))}." if known else "No task is finished yet.")
            )
        return found

    def cumulative_mask(self, graph: UnitGraph) -> dict[str, Tensor]:
        """Return `m^{<=t} = max_tau m^tau` of each layer, `(units,)` bool (HAT, section 2.3)."""
        total = {name: torch.zeros(layer.units, dtype=torch.bool) for name, layer in graph.layers.items()}
        for record in self.records.values():
            total = {name: mask | record.masks[name].to(mask.device) for name, mask in total.items()}
        return total

    def summative_mask(self, graph: UnitGraph) -> dict[str, Tensor]:
        """Return `sum_tau m^tau` of each layer, `(units,)` long: how many tasks use each unit (AdaHAT, Eq. 7)."""
        total = {name: torch.zeros(layer.units, dtype=torch.long) for name, layer in graph.layers.items()}
        for record in self.records.values():
            total = {name: count + record.masks[name].to(count.device) for name, count in total.items()}
        return total
