"""What is remembered across tasks: masks, importances and per-task copies of tensors."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from fgadahat_hooks.graph import UnitGraph

STATE_VERSION = 1

TaskId = Hashable


@dataclass
class TaskRecord:
    """What one finished task left.

    Attributes:
        masks: Binary mask of each gated layer, `(units,)` bool.
        tensors: Copies of the tensors that every task has for itself (heads, norms), by qualified name.
        importance: Importance of each layer's units for this task, `(units,)`; empty without an importance callback.
        num_classes: Number of outputs of the head, if the task asked for one.
    """

    masks: dict[str, Tensor]
    tensors: dict[str, Tensor] = field(default_factory=dict)
    importance: dict[str, Tensor] = field(default_factory=dict)
    num_classes: int | None = None


@dataclass
class RunningTask:
    """What a task that has not ended needs to go on, beside the model's own values.

    Attributes:
        id: The task's id.
        num_classes: Number of outputs of the head, if the task asked for one.
        scale: Gate scale `s` of the last batch.
        annealed: Whether the scale was ever set in the task.
        steps: Number of real optimizer steps.
        tensors: Per-task tensors as they were before the task, by qualified name.
        embeddings: Task embeddings as they were before the task, by layer.
        callbacks: State of each callback that has one, by its key.
    """

    id: TaskId
    num_classes: int | None
    scale: float
    annealed: bool
    steps: int
    tensors: dict[str, Tensor]
    embeddings: dict[str, Tensor]
    callbacks: dict[str, dict[str, Any]]


@dataclass
class TaskState:
    """All finished tasks in the order they were learnt, and what follows from them.

    Attributes:
        records: One record a finished task.
        summed_importance: What the summation strategy made of all tasks' importances, `(units,)` a layer.
    """

    records: dict[TaskId, TaskRecord] = field(default_factory=dict)
    summed_importance: dict[str, Tensor] = field(default_factory=dict)

    @property
    def finished(self) -> int:
        """Number of finished tasks, `T`."""
        return len(self.records)

    def cumulative_mask(self, graph: UnitGraph) -> dict[str, Tensor]:
        """Return `m^{<=t} = max_tau m^tau` of each layer, `(units,)` bool (HAT, section 2.3)."""
        empty = {name: torch.zeros(layer.units, dtype=torch.bool) for name, layer in graph.layers.items()}
        for record in self.records.values():
            empty = {name: mask | record.masks[name].to(mask.device) for name, mask in empty.items()}
        return empty

    def summative_mask(self, graph: UnitGraph) -> dict[str, Tensor]:
        """Return `sum_tau m^tau` of each layer, `(units,)` long: how many tasks use each unit (AdaHAT, Eq. 7)."""
        total = {name: torch.zeros(layer.units, dtype=torch.long) for name, layer in graph.layers.items()}
        for record in self.records.values():
            total = {name: count + record.masks[name].to(count.device) for name, count in total.items()}
        return total
