"""The face of an attached model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from fgadahat_hooks import registry
from fgadahat_hooks.callbacks.gradient_adjust import GradientAdjustCallback
from fgadahat_hooks.callbacks.rates import spread
from fgadahat_hooks.errors import BadCallError, NoTaskError, TaskRunningError
from fgadahat_hooks.gate import GateMode
from fgadahat_hooks.graph import UnitGraph
from fgadahat_hooks.mixed import using_each
from fgadahat_hooks.plan import Plan, make_plan
from fgadahat_hooks.runtime import Runtime
from fgadahat_hooks.spec import AttachSpec
from fgadahat_hooks.state import TaskId
from fgadahat_hooks.task import Task
from fgadahat_hooks.verify import VerifyReport, verify

if TYPE_CHECKING:
    from fgadahat_hooks.trace import ExampleInputs


class Session:
    """Learns task after task on one model; made by `fgadahat_hooks.attach`."""

    def __init__(self, runtime: Runtime) -> None:
        """Take over an attached model."""
        self._runtime = runtime

    # ---------------------------------------------------------------- what was asked for and found
    @property
    def model(self) -> nn.Module:
        """The user's model."""
        return self._runtime.model

    @property
    def spec(self) -> AttachSpec:
        """The validated spec."""
        return self._runtime.spec

    @property
    def graph(self) -> UnitGraph:
        """The unit graph.

        Raises:
            NoTaskError: The model was attached without example inputs and no batch has come yet.
        """
        self._runtime.check_attached()
        if not self._runtime.traced:
            raise NoTaskError(
                "The model has not been traced yet: it will be on its first batch. Pass example_inputs to attach to "
                "trace at once."
            )
        return self._runtime.graph

    @property
    def plan(self) -> Plan:
        """What is gated where, and how every parameter and buffer is protected."""
        adjusting = [c.spec for c in self._runtime.callbacks.items if isinstance(c, GradientAdjustCallback)]
        return make_plan(self.model, self.graph, self._runtime.policies, adjusting[0] if adjusting else None)

    # ---------------------------------------------------------------- tasks
    def task(self, task: TaskId, num_classes: int | None = None) -> Task:
        """Return a new task, to be used as `with session.task("birds") as task:`.

        Args:
            task: Any non-empty string or int that no finished task has.
            num_classes: Number of outputs of this task's head; as at attach when left out.
        """
        self._runtime.check_attached()
        return Task(self._runtime, task, num_classes)

    @property
    def tasks(self) -> tuple[TaskId, ...]:
        """Ids of the finished tasks, in the order they were learnt."""
        return tuple(self._runtime.state.records)

    def use(self, task: TaskId | Sequence[TaskId] | Tensor) -> AbstractContextManager[None]:
        """Evaluate as a finished task: `with session.use("birds"): logits = model(x)`.

        The task's binary masks act in the gates and its own heads, norms and other tensors are in the model for the
        block. Blocks may be nested, and opened while a task is running; the running task's id stands for its current
        hard mask. With a list, tuple or 1-d tensor, one id per sample of the batch.

        Raises:
            UnknownTaskError: No task of that id is finished.
            BadCallError: An empty list.
        """
        runtime = self._runtime
        runtime.check_attached()
        if isinstance(task, Tensor):
            task = task.tolist()
        if isinstance(task, list | tuple):
            if not task:
                raise BadCallError("Expected one task id per sample of the batch, but got an empty list.")
            return using_each(runtime, task)
        if runtime.task is not None and runtime.task.id == task:
            return self._use_running()
        runtime.record(task)
        return runtime.using(task)

    @contextmanager
    def _use_running(self) -> Iterator[None]:
        """Run the block under the hard mask of the running task."""
        context = self._runtime.gate_context
        before = (context.mode, context.masks)
        try:
            context.masks = {name: gate.hard_mask() for name, gate in self._runtime.gates.items()}
            context.mode = GateMode.USE
            yield
        finally:
            context.mode, context.masks = before

    def parameter_groups(
        self, lr: float, gate_lr: float | None = None, weight_decay: float = 0.0, **options: Any
    ) -> list[dict[str, Any]]:
        """Return parameter groups for any torch optimizer.

        Args:
            lr: Learning rate of the model's own parameters.
            gate_lr: Learning rate of the task embeddings; ten times `lr` when left out, because the published
                embeddings learn too slowly to leave room for later tasks.
            weight_decay: For the model's own parameters; embeddings never get any.
            **options: Further options of both groups.

        Returns:
            Two groups: trainable parameters of the model (without those frozen by now), and task embeddings.
        """
        runtime = self._runtime
        runtime.check_attached()
        for name, value in (("lr", lr), ("gate_lr", 10 * lr if gate_lr is None else gate_lr)):
            if not isinstance(value, int | float | Tensor) or isinstance(value, bool) or not value > 0:
                raise BadCallError(f"Expected `{name}` to be a number > 0, but got {value!r}.")
        gates = [gate.embedding for gate in runtime.gates.values()]
        left_out = {id(e) for e in gates} | {id(runtime.tensors.tensor(name)) for name in runtime.frozen}
        own = [p for p in runtime.model.parameters() if p.requires_grad and id(p) not in left_out]
        return [
            {"params": own, "lr": lr, "weight_decay": weight_decay, **options},
            {"params": gates, "lr": 10 * lr if gate_lr is None else gate_lr, "weight_decay": 0.0, **options},
        ]

    # ---------------------------------------------------------------- looking
    def masks(self, task: TaskId) -> dict[str, Tensor]:
        """Return a finished task's binary masks, `(units,)` bool a layer.

        Raises:
            UnknownTaskError: No task of that id is finished.
        """
        return {name: mask.clone() for name, mask in self._runtime.record(task).masks.items()}

    def importance(self, task: TaskId) -> dict[str, Tensor]:
        """Return the importance of each layer's units for a finished task; empty without an importance callback."""
        return {name: value.clone() for name, value in self._runtime.record(task).importance.items()}

    @property
    def cumulative_mask(self) -> dict[str, Tensor]:
        """Which units any finished task uses, `(units,)` bool a layer."""
        return self._runtime.state.cumulative_mask(self.graph)

    @property
    def summative_mask(self) -> dict[str, Tensor]:
        """How many finished tasks use each unit, `(units,)` long a layer."""
        return self._runtime.state.summative_mask(self.graph)

    def capacity(self) -> float:
        """Return the network capacity: the mean adjustment rate over gated weights and biases (AdaHAT, section 4.1).

        In a running task with its current gates, else for a next task that uses nothing yet. 1 before the first task
        ends, or without a gradient-adjust callback. It tells how much of the network may still move, not how well.
        """
        runtime = self._runtime
        found = [c for c in runtime.callbacks.items if isinstance(c, GradientAdjustCallback)]
        if not found or not self.graph.layers or not runtime.state.records:
            return 1.0
        fresh = GradientAdjustCallback(found[0].spec)
        context = runtime.context(None)
        if runtime.task is None:
            context.soft_masks = lambda: torch.zeros_like(context.cumulative)  # type: ignore[method-assign]
        rates = fresh.rates(context).values()
        return float(sum(r.double().sum() for r in rates) / sum(r.numel() for r in rates))

    def unit_use(self) -> dict[str, dict[TaskId, float]]:
        """Return for each layer the fraction of its units that each finished task uses."""
        records = self._runtime.state.records
        return {
            name: {task: float(record.masks[name].double().mean()) for task, record in records.items()}
            for name in self.graph.layers
        }

    def clip_grad_by_mask(self, mask: Mapping[str, Tensor], aggregation: str = "min") -> None:
        """Multiply the gradients of gated weights and biases by a mask of units, in place (the form of HAT Eq. 2).

        Each weight takes the aggregation of its own unit's and its input's value; a bias, and a weight of a layer that
        no gated layer feeds, its own unit's alone. An input that is always live counts as 1.

        Args:
            mask: One factor a unit, `(units,)` for each gated layer by name.
            aggregation: `min`, `max` or `mean` of the two units' factors.

        Raises:
            BadCallError: A layer is missing, unknown, or has another number of units; the aggregation is unknown.
        """
        if aggregation not in registry.aggregations:
            names = list(registry.aggregations.names())
            raise BadCallError(f"Expected `aggregation` to be one of {names}, but got {aggregation!r}.")
        layers = self._runtime.layers()
        wrong = [n for n, layer in layers.items() if n not in mask or mask[n].shape != (layer.info.units,)]
        wrong += [n for n in mask if n not in layers]
        if wrong:
            raise BadCallError(
                "Expected one tensor of shape (units,) for every gated layer, but it is missing, unknown or of another "
                f"shape for: {', '.join(map(repr, wrong[:5]))}. `session.cumulative_mask` shows the form."
            )
        joined = self.graph.join({name: mask[name].to(torch.get_default_dtype()) for name in layers})
        with torch.no_grad():
            for layer in layers.values():
                for parameter, factor in zip(
                    (layer.weight, layer.bias), spread(layer, joined, aggregation, 1.0), strict=True
                ):
                    if parameter is not None and parameter.grad is not None:
                        parameter.grad.mul_(factor.to(parameter.grad))

    # ---------------------------------------------------------------- proof, and the way back
    def verify(self, inputs: ExampleInputs | None = None) -> VerifyReport:
        """Prove on this very model that free entries cannot change any finished task's logits, bit for bit.

        On a copy, every entry that the library calls free is overwritten with noise, and the logits of every finished
        task are compared with those before.

        Args:
            inputs: Inputs for the model, as for `attach`; those of the trace when left out.

        Raises:
            NoTaskError: No task is finished.
            TaskRunningError: A task is running.
            LeakError: The logits of a finished task changed; names the parameters that leak.
        """
        runtime = self._runtime
        runtime.check_attached()
        if runtime.task is not None:
            raise TaskRunningError(f"Task {runtime.task.id!r} is running; verify after it has ended.")
        if not runtime.state.records:
            raise NoTaskError("No task is finished, so there is nothing to verify yet.")
        return verify(runtime, inputs, self.plan.leaks)

    def detach(self) -> nn.Module:
        """Give the model back: no hook, no attribute, no extra key is left. A second call does nothing.

        The model keeps the values it has: those of the last task. To keep another task's head and norms, detach
        inside `with session.use(task):`.

        Raises:
            TaskRunningError: A task is running.
        """
        runtime = self._runtime
        if runtime.task is not None:
            raise TaskRunningError(f"Task {runtime.task.id!r} is running; leave its block before detaching.")
        runtime.hooks.close()
        runtime.detached = True
        return runtime.model

    def __repr__(self) -> str:
        """Show the model's class and the tasks."""
        return f"Session({type(self.model).__name__}, {len(self._runtime.gates)} gates, tasks={list(self.tasks)})"
