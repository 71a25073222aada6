"""What can be read from a session."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal, overload

from torch import Tensor, nn

from fgadahat_hooks.callbacks import Callback
from fgadahat_hooks.callbacks.gradient_adjust import GradientAdjustCallback
from fgadahat_hooks.errors import BadCallError, TaskRunningError
from fgadahat_hooks.export import ExportReport, export
from fgadahat_hooks.gates.task_state import TaskId
from fgadahat_hooks.graph.trace import ExampleInputs
from fgadahat_hooks.graph.unit_graph import UnitGraph
from fgadahat_hooks.protection.plan import Plan
from fgadahat_hooks.protection.planning import make_plan
from fgadahat_hooks.spec.attach_spec import AttachSpec
from fgadahat_hooks.tasks.capacity import adjustment_rates, mean_rates, network_capacity
from fgadahat_hooks.tasks.clip import clip_grad_by_mask
from fgadahat_hooks.tasks.measuring import measure
from fgadahat_hooks.tasks.sequence import TaskSequence


class SessionViews:
    """Model, tasks, masks, importances and rates; the part of a session that changes nothing it has learnt."""

    def __init__(self, sequence: TaskSequence) -> None:
        """Wrap an attached model and its tasks.

        Args:
            sequence: The tasks; its callbacks are those given to `attach`, or that the spec asks for.
        """
        self._sequence = sequence
        self._attached = sequence.attached
        self._own_callbacks: tuple[Callback, ...] = tuple(sequence.callbacks.items)

    # ---------------------------------------------------------------- the model and its graph
    @property
    def model(self) -> nn.Module:
        """The user's model."""
        return self._attached.model

    @property
    def spec(self) -> AttachSpec:
        """The validated spec."""
        return self._attached.spec

    @property
    def graph(self) -> UnitGraph:
        """The unit graph.

        Raises:
            NoTaskError: The model was attached without example inputs and no batch has come yet.
        """
        self._attached.check_attached()
        return self._sequence.graph

    def retrace(self, inputs: ExampleInputs) -> None:
        """Extend the unit graph to further inputs, on which the model takes another execution path.

        A path through other modules is detected when it first runs. One that differs only in functions (`if
        x.mean() > 0: h = h + 1`) is not: trace inputs of each kind, here or at `attach` by a function that calls the
        model on all of them, before the first task. Gates and tasks stay as they are.

        Args:
            inputs: Inputs for the model, as for `attach`.

        Raises:
            NoTaskError: The model has not been traced yet.
            TraceError: The forward raised.
        """
        _ = self.graph  # raises if there is none yet
        if self._sequence.branches is not None:
            with self._sequence.exclusive():
                self._sequence.branches.trace(inputs)

    @property
    def traced(self) -> bool:
        """Whether the unit graph is known: at once with example inputs, else from the first batch on."""
        return self._attached.traced

    @property
    def plan(self) -> Plan:
        """What is gated where, and how every parameter and buffer is protected."""
        graph, attached = self.graph, self._attached
        adjusting = [c.spec for c in self._sequence.callbacks.items if isinstance(c, GradientAdjustCallback)]
        mode = adjusting[0] if adjusting else None
        return make_plan(attached.model, graph, attached.policies, mode, attached.spec)

    @property
    def embeddings(self) -> dict[str, nn.Parameter]:
        """The task embedding of each gated layer, `(units,)`; an optimizer must hold them beside the model's own."""
        return {name: gate.embedding for name, gate in self._attached.gates.items()}

    # ---------------------------------------------------------------- tasks and callbacks
    @property
    def tasks(self) -> tuple[TaskId, ...]:
        """Ids of the finished tasks, in the order they were learnt."""
        return tuple(self._sequence.state.records)

    @property
    def running(self) -> TaskId | None:
        """Id of the running task, None between tasks."""
        found = self._sequence.running
        return None if found is None else found.id

    @property
    def interrupted(self) -> TaskId | None:
        """Id of the task that a loaded state is in the middle of, None once it is resumed or rolled back."""
        found = self._sequence.interrupted
        return None if found is None else found.id

    @property
    def own_callbacks(self) -> tuple[Callback, ...]:
        """The callbacks that were given to `attach`, or that the spec asked for there."""
        return self._own_callbacks

    @property
    def callbacks(self) -> tuple[Callback, ...]:
        """What acts at the events of a task, in the order it is called."""
        return tuple(self._sequence.callbacks.items)

    # ---------------------------------------------------------------- what tasks left
    def masks(self, task: TaskId) -> dict[str, Tensor]:
        """Return a finished task's binary masks, `(units,)` bool a layer.

        Raises:
            UnknownTaskError: No task of that id is finished.
        """
        return {name: mask.clone() for name, mask in self._sequence.state.record(task).masks.items()}

    def importance(self, task: TaskId) -> dict[str, Tensor]:
        """Return the importance of each layer's units for a finished task; empty without an importance callback."""
        return {name: value.clone() for name, value in self._sequence.state.record(task).importance.items()}

    def notes(self, task: TaskId) -> tuple[str, ...]:
        """Return what a user should know of how a finished task went, a sentence each; empty if all is well.

        It names a task that had fewer free units than its share, a layer without open units, a task that is at chance
        on its last training batches, and the remedy. A `LearningWarning` said the same when the task ended.

        Raises:
            UnknownTaskError: No task of that id is finished.
        """
        return tuple(self._sequence.state.record(task).notes)

    def reuse(self, task: TaskId) -> dict[str, float]:
        """Return which share of a finished task's signal comes from units of earlier tasks, 0 to 1 a layer.

        Of each layer that reads gated units: input `i` brings `E|a_i| sum_r |W_ri|`, over the task's last training
        batches and the rows `r` that the task trained (its own new units, or its head); the share is that of inputs fed
        by units that an earlier task uses. Layers of which the task trained no row are left out. This library's own
        measure.

        Raises:
            UnknownTaskError: No task of that id is finished.
        """
        return dict(self._sequence.state.record(task).reuse)

    @property
    def cumulative_mask(self) -> dict[str, Tensor]:
        """Which units any finished task uses, `(units,)` bool a layer."""
        return self._sequence.state.cumulative_mask(self.graph)

    @property
    def summative_mask(self) -> dict[str, Tensor]:
        """How many finished tasks use each unit, `(units,)` long a layer."""
        return self._sequence.state.summative_mask(self.graph)

    @property
    def summed_importance(self) -> dict[str, Tensor]:
        """The importance summed over finished tasks, `(units,)` a layer; empty without a summation callback."""
        return {name: value.clone() for name, value in self._sequence.state.summed_importance.items()}

    def unit_use(self) -> dict[str, dict[TaskId, float]]:
        """Return for each layer the fraction of its units that each finished task uses."""
        records = self._sequence.state.records
        return {
            name: {task: float(record.masks[name].double().mean()) for task, record in records.items()}
            for name in self.graph.layers
        }

    def capacity(self) -> float:
        """Return the network capacity: the mean adjustment rate over gated weights and biases (AdaHAT, section 4.1).

        In a running task with its current gates, else for a next task that uses nothing yet. 1 before the first task
        ends, or without a gradient-adjust callback. It measures how much of the network may still change, not how well.
        """
        return network_capacity(self._rates())

    def mean_rates(self) -> dict[str, float]:
        """Return the mean adjustment rate of each gated weight and bias, by parameter name; see `capacity`."""
        return mean_rates(self._attached, self._rates())

    def _rates(self) -> dict[str, Tensor]:
        """Return the rate of every gated weight and bias, by parameter name; empty where all of them are 1."""
        sequence = self._sequence
        return adjustment_rates(sequence, sequence.state, running=sequence.running is not None)

    # ---------------------------------------------------------------- what can be computed
    def measure(
        self,
        name: str,
        inputs: ExampleInputs,
        target: Tensor | Callable[[Any], Tensor] | None = None,
        **params: Any,
    ) -> dict[str, Tensor]:
        """Return the raw importance of every gated layer's units on one batch, `(units,)` each, for inspection.

        The model runs as in evaluation, under the current gates: the running task's, or a finished task's inside
        `with session.use(task):`. Nothing of the model or of the training changes: no gradient, buffer, mode or random
        state.

        Args:
            name: Name of a measure in `registry.measures`.
            inputs: One batch: a tensor, a tuple of positional arguments, a dict of keyword arguments, or a function
                that takes the model and calls it.
            target: The true labels, `(batch,)`; or a function of the model's output that returns one number a sample.
                Attributions are of the label's logit, or of that number; gradients are of the mean cross entropy, or of
                that number's mean. Measures of weights and activations alone need none.
            **params: Parameters of the measure, by name.

        Raises:
            UnknownNameError: No measure of that name.
            BadCallError: A parameter, the labels or the batch cannot be used.
            CapabilityError: The measure cannot be computed on this model.
            NonFiniteError: The measure is not finite; names measure and layer.
            NoTaskError: Tasks are finished and none is chosen.
        """
        _ = self.graph  # raises if there is none yet
        return measure(self._sequence, name, inputs, target, params)

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
        clip_grad_by_mask(self._attached, mask, aggregation)

    @overload
    def export(
        self,
        task: TaskId,
        *,
        compact: bool = ...,
        inputs: ExampleInputs | None = ...,
        report: Literal[False] = ...,
    ) -> nn.Module: ...

    @overload
    def export(
        self, task: TaskId, *, compact: bool = ..., inputs: ExampleInputs | None = ..., report: Literal[True]
    ) -> tuple[nn.Module, ExportReport]: ...

    def export(
        self, task: TaskId, *, compact: bool = False, inputs: ExampleInputs | None = None, report: bool = False
    ) -> nn.Module | tuple[nn.Module, ExportReport]:
        """Return a copy of the model that computes one finished task only, in evaluation mode.

        Its outputs are those under `session.use(task)`: bit for bit, or up to rounding if compact. This is checked
        before it is returned.

        Args:
            task: Id of a finished task.
            compact: Remove the units that the task does not use, wherever the model allows.
            inputs: Inputs to check with, as for `attach`; those of the trace when left out.
            report: Also return what a compact export removed and what it had to keep.

        Returns:
            A module of the same class that does not need this library, with the `state_dict` keys of the model before
            `attach`; with `report`, that module and an `ExportReport`.

        Raises:
            UnknownTaskError: No task of that id is finished.
            TaskRunningError: The task has not ended.
            ExportError: The outputs would change; names the layers that may be the cause.
            BadCallError: A report is asked for an export that is not compact.
        """
        self._attached.check_attached()
        if report and not compact:
            raise BadCallError("Expected `compact=True` for a report, but got compact=False. Nothing is removed then.")
        sequence, using = self._sequence, self._sequence.using(task)
        current = sequence.running or sequence.interrupted
        if current is not None and current.id == task:
            raise TaskRunningError(f"Task {task!r} has not ended. End its block, then export it.")
        record = sequence.state.record(task)
        sequence.check_kept(f"when task {task!r} was exported")
        module, found = export(self._attached, task, record, sequence.exclusive(), using, inputs, compact=compact)
        return module if found is None or not report else (module, found)
