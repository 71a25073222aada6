"""The events of a task, and what a callback sees when one happens."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from fgadahat_hooks.errors import DuplicateNameError
from fgadahat_hooks.gate import Gate
from fgadahat_hooks.graph import InputMap, UnitGraph, UnitLayer
from fgadahat_hooks.hooks import HookSet
from fgadahat_hooks.layers import LayerType
from fgadahat_hooks.state import TaskId, TaskRecord, TaskState


@dataclass(frozen=True, eq=False)
class GatedLayer:
    """One gated layer with all that belongs to it.

    Attributes:
        info: Its place in the unit graph.
        module: The layer.
        kind: Its layer type.
        gate: Its gate.
        inputs: Who feeds its inputs.
        reader: The module whose output shows the gated units, if one does.
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
        state: What earlier tasks left; callbacks read it and never write.
        cumulative: `m^{<t}` of all units, joined, `(total units,)`, numbers 0 and 1 on the model's device.
        summative: `m^{<t,sum}` of all units, joined.
        hooks: Hooks put here live until the task ends.
        model: The attached model.
        record: The running task's record. Its masks are there at `on_task_end`; callbacks may add its importance.
        summed_importance: What replaces the state's at the end of the task, set by a summation callback.
        data: What the loader gave for the batch that is being trained on, None if the loop does not say.
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
        """Device of the first gated layer; vectors over all units live there."""
        return next(iter(self.layers.values())).weight.device if self.layers else torch.device("cpu")

    def soft_masks(self) -> Tensor:
        """Return the training mask `m^t` of all units at this batch's scale, joined, without gradient."""
        gates = [layer.gate for layer in self.layers.values()]
        return torch.cat([gate.context.line(gate)[0].to(self.device) for gate in gates])

    @cached_property
    def layer_of_unit(self) -> Tensor:
        """Number of each unit's layer, `(total units,)` long, on the device."""
        return self.graph.layer_of_unit.to(self.device)


class Callback:
    """Base of everything that acts at the events of a task. Override the events you need.

    Attributes:
        key: Unique among the callbacks of a session; the name its state is saved under.
        priority: Callbacks are called in rising priority, equal ones in the order given. Importance is 10, summation
            20, gradient adjustment 90; a user's callback comes between them by default. An instance may set its own
            for the steps; tasks end in the order of the classes, so that importance is always there to be summed.
    """

    key: ClassVar[str] = ""
    priority: ClassVar[int] = 50

    def on_task_start(self, context: TaskContext) -> None:
        """A task has begun; embeddings and per-task tensors are set."""

    def on_graph_change(self, context: TaskContext) -> None:
        """A forward took a way that no trace had seen; the context's graph now holds for it too.

        Layers, units and masks are the same; inputs may be fed by more units, or always live.
        """

    def on_train_batch_start(self, context: TaskContext) -> None:
        """A batch is about to be used; the gate scale is set."""

    def on_gradients_ready(self, context: TaskContext, optimizer: Optimizer) -> None:
        """The gradients of a real step are complete, and neither clipped nor adjusted yet.

        Called right before `on_before_optimizer_step`, or earlier if the loop says so by `task.gradients_ready`.

        Args:
            context: The running task.
            optimizer: The optimizer that is going to step.
        """

    def on_before_optimizer_step(self, context: TaskContext, optimizer: Optimizer) -> None:
        """An optimizer is about to make a real step; gradients are complete, parameters not yet changed.

        Args:
            context: The running task.
            optimizer: The optimizer that steps; a task may have several.
        """

    def on_after_optimizer_step(self, context: TaskContext, optimizer: Optimizer) -> None:
        """The optimizer has changed the parameters.

        Args:
            context: The running task.
            optimizer: The optimizer that has stepped.
        """

    def on_train_batch_end(self, context: TaskContext) -> None:
        """The loop has asked for the next batch."""

    def on_task_end(self, context: TaskContext) -> None:
        """The task ends cleanly; its masks are in `context.record`, nothing is stored yet."""

    def on_task_abort(self, context: TaskContext) -> None:
        """The task was left by an exception; forget what belongs to it."""

    def state_dict(self) -> dict[str, Any]:
        """Return what must survive a restart: tensors, numbers, strings, None, and lists and dicts of them.

        Dicts have strings as keys. In the middle of a task it is asked for between two steps.
        """
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back what `state_dict` returned; a task that goes on has had its `on_task_start` before."""

    @property
    def allows_closure(self) -> bool:
        """Whether it works when an optimizer computes its gradients inside the step, by a closure."""
        return True

    @property
    def state_key(self) -> str:
        """Name its state is saved under."""
        return self.key or type(self).__qualname__


class CallbackList:
    """Callbacks in the order they are called."""

    def __init__(self, callbacks: Iterable[Callback]) -> None:
        """Sort by priority.

        Raises:
            DuplicateNameError: Two callbacks have the same key.
        """
        self.items = sorted(callbacks, key=lambda callback: callback.priority)
        self._at_task_end = sorted(self.items, key=lambda callback: type(callback).priority)
        keys = [callback.state_key for callback in self.items]
        twice = sorted({key for key in keys if keys.count(key) > 1})
        if twice:
            raise DuplicateNameError(
                f"Expected every callback to have its own key, but {twice} came more than once. Pass each callback "
                "once, or give a subclass another `key`."
            )

    def call(self, event: str, *args: object) -> None:
        """Call one event of every callback.

        After a step each of them is called, even if one before it raises: one puts back what finished tasks need.
        """
        if event == "on_after_optimizer_step":
            with ExitStack() as stack:
                for callback in reversed(self.items):
                    stack.callback(getattr(callback, event), *args)
            return
        for callback in self._at_task_end if event == "on_task_end" else self.items:
            getattr(callback, event)(*args)

    def state_dict(self) -> dict[str, dict[str, Any]]:
        """Return the state of every callback that has one, by its key."""
        return {c.state_key: state for c in self.items if (state := c.state_dict())}

    def load_state_dict(self, states: Mapping[str, Mapping[str, Any]]) -> None:
        """Take back what `state_dict` returned; a callback without a saved state keeps its own."""
        for callback in self.items:
            if callback.state_key in states:
                callback.load_state_dict(states[callback.state_key])


def optimizer_parameters(optimizer: Optimizer) -> set[int]:
    """Return the identities of the parameters an optimizer steps."""
    return {id(p) for group in optimizer.param_groups for p in group["params"]}
