"""What callbacks see of a task: the gated layers, and the state of earlier tasks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from fgadahat_hooks.gates.gate import Gate
from fgadahat_hooks.gates.task_state import TaskId, TaskRecord, TaskState
from fgadahat_hooks.graph.unit_graph import InputMap, UnitGraph, UnitLayer
from fgadahat_hooks.hooks import HookSet
from fgadahat_hooks.layers import LayerType


@dataclass(frozen=True, eq=False)
class GatedLayer:
    """One gated layer with all that belongs to it.

    Attributes:
        info: Its place in the unit graph.
        module: The layer.
        kind: Its layer type.
        gate: Its gate.
        inputs: Which units feed its inputs.
        reader: The module whose output holds the gated units, if there is one.
    """

    info: UnitLayer
    module: nn.Module
    kind: LayerType
    gate: Gate
    inputs: InputMap
    reader: nn.Module | None

    @property
    def weight(self) -> nn.Parameter:
        """The weight."""
        return self.module._parameters["weight"]  # type: ignore[return-value]

    @property
    def bias(self) -> nn.Parameter | None:
        """The bias, if there is one."""
        return self.module._parameters.get("bias")


@dataclass(eq=False)
class TaskContext:
    """What callbacks see of the running task.

    Attributes:
        task: Id of the task.
        number: Its number `t`, counted from 1.
        graph: The unit graph.
        layers: The gated layers by name, in the graph's order.
        readers: Every layer that reads gated units: module and layer type by name.
        state: State of earlier tasks; callbacks only read it.
        cumulative: `m^{<t}` of all units, joined, `(total units,)`, numbers 0 and 1 on the model's device.
        summative: `m^{<t,sum}` of all units, joined.
        hooks: Hooks registered here are removed when the task ends.
        model: The attached model.
        record: Record of the running task. It has its masks from `on_task_end` on; callbacks may add its importance.
        summed_importance: Replaces `state.summed_importance` at the end of the task; set by a summation callback.
        data: What the loader gave for the current batch; None if the training loop does not pass it.
    """

    task: TaskId
    number: int
    graph: UnitGraph
    layers: Mapping[str, GatedLayer]
    readers: Mapping[str, tuple[nn.Module, LayerType]]
    state: TaskState
    cumulative: Tensor
    summative: Tensor
    hooks: HookSet
    model: nn.Module
    record: TaskRecord = field(default_factory=lambda: TaskRecord({}))
    summed_importance: dict[str, Tensor] | None = None
    data: Any = None

    @property
    def device(self) -> torch.device:
        """Device of the first gated layer, on which vectors over all units are kept."""
        return next(iter(self.layers.values())).weight.device if self.layers else torch.device("cpu")

    def soft_masks(self) -> Tensor:
        """Return the training mask `m^t` of all units at the scale of this batch, joined, without gradient."""
        gates = [layer.gate for layer in self.layers.values()]
        return torch.cat([gate.context.linearised_mask(gate)[0].to(self.device) for gate in gates])

    @cached_property
    def layer_of_unit(self) -> Tensor:
        """Index of each unit's layer, `(total units,)` long, on `device`."""
        return self.graph.layer_of_unit.to(self.device)
