"""What can be looked at on a session."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Literal, overload

import torch
from torch import Tensor, nn

from fgadahat_hooks.callbacks.gradient_adjust import GradientAdjustCallback
from fgadahat_hooks.clip import clip_grad_by_mask
from fgadahat_hooks.errors import BadCallError, NoTaskError
from fgadahat_hooks.export import ExportReport, export
from fgadahat_hooks.graph import UnitGraph
from fgadahat_hooks.measuring import measure
from fgadahat_hooks.runtime import Runtime
from fgadahat_hooks.state import TaskId

if TYPE_CHECKING:
    from fgadahat_hooks.trace import ExampleInputs


class SessionViews:
    """Masks, importances and rates of an attached model; the part of a session that changes nothing it has learnt."""

    def __init__(self, runtime: Runtime) -> None:
        """Take over an attached model."""
        self._runtime = runtime

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
        self._runtime.settle()
        return self._runtime.graph

    def retrace(self, inputs: ExampleInputs) -> None:
        """Let the unit graph hold for further inputs too, with which the model computes in another way.

        Another way that other modules take is noticed by itself when it first runs. One that only functions take (`if
        x.mean() > 0: h = h + 1`) is not: trace inputs of each kind, here or at `attach` by a function that calls the
        model on all of them, before the first task. What gates and tasks there are stays.

        Args:
            inputs: Inputs for the model, as for `attach`.

        Raises:
            NoTaskError: The model has not been traced yet.
            TraceError: The forward raised.
        """
        runtime = self._runtime
        runtime.check_attached()
        _ = self.graph  # raises if there is none yet
        if runtime.branches is not None:
            with runtime.alone():
                runtime.branches.trace(inputs)

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

    @property
    def traced(self) -> bool:
        """Whether the unit graph is known: at once with example inputs, else from the first batch on."""
        return self._runtime.traced

    @property
    def embeddings(self) -> dict[str, nn.Parameter]:
        """The task embedding of each gated layer, `(units,)`; an optimizer must hold them beside the model's own."""
        return {name: gate.embedding for name, gate in self._runtime.gates.items()}

    def capacity(self) -> float:
        """Return the network capacity: the mean adjustment rate over gated weights and biases (AdaHAT, section 4.1).

        In a running task with its current gates, else for a next task that uses nothing yet. 1 before the first task
        ends, or without a gradient-adjust callback. It tells how much of the network may still move, not how well.
        """
        rates = self._rates().values()
        return float(sum(r.double().sum() for r in rates) / sum(r.numel() for r in rates)) if rates else 1.0

    def mean_rates(self) -> dict[str, float]:
        """Return the mean adjustment rate of each gated weight and bias, by parameter name; see `capacity`."""
        rates = self._rates()
        if not rates:
            gated = [policy.name for policy in self._runtime.policies if policy.role == "gated"]
            return dict.fromkeys(gated, 1.0)
        return {name: float(rate.double().mean()) for name, rate in rates.items()}

    def _rates(self) -> dict[str, Tensor]:
        """Return the rate of every gated weight and bias, nothing where all of them are 1."""
        runtime = self._runtime
        found = [c for c in runtime.callbacks.items if isinstance(c, GradientAdjustCallback)]
        if not found or not self.graph.layers or not runtime.state.records:
            return {}
        fresh = GradientAdjustCallback(found[0].spec)
        context = runtime.context(None)
        if runtime.task is None:
            context.soft_masks = lambda: torch.zeros_like(context.cumulative)  # type: ignore[method-assign]
        return fresh.rates(context)

    def unit_use(self) -> dict[str, dict[TaskId, float]]:
        """Return for each layer the fraction of its units that each finished task uses."""
        records = self._runtime.state.records
        return {
            name: {task: float(record.masks[name].double().mean()) for task, record in records.items()}
            for name in self.graph.layers
        }

    def measure(
        self,
        name: str,
        inputs: ExampleInputs,
        target: Tensor | Callable[[Any], Tensor] | None = None,
        **params: Any,
    ) -> dict[str, Tensor]:
        """Return the raw importance of every gated layer's units on one batch, `(units,)` each, for looking.

        The model runs as in evaluation, under the gates in force: the running task's, or a finished task's inside
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
        self._runtime.check_attached()
        _ = self.graph  # raises if there is none yet
        return measure(self._runtime, name, inputs, target, params)

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
        clip_grad_by_mask(self._runtime, mask, aggregation)

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
        """Return a copy of the model that is a finished task and nothing more, in evaluation mode.

        Its outputs are those under `session.use(task)`, bit for bit; compact, up to rounding. Either is checked before
        it is returned.

        Args:
            task: Id of a finished task.
            compact: Remove the units that the task does not use, wherever the model allows.
            inputs: Inputs to check with, as for `attach`; those of the trace when left out.
            report: Return, beside the module, what a compact export saved and what it had to keep.

        Returns:
            A module of the same class that does not need this library, with the `state_dict` keys of the model before
            `attach`; with `report`, that module and an `ExportReport`.

        Raises:
            UnknownTaskError: No task of that id is finished.
            TaskRunningError: The task has not ended.
            ExportError: The outputs would change; names the layers that may be why.
            BadCallError: A report is asked for an export that is not compact.
        """
        self._runtime.check_attached()
        if report and not compact:
            raise BadCallError("Expected `compact=True` for a report, but got compact=False. Nothing is removed then.")
        module, found = export(self._runtime, task, inputs, compact=compact)
        return module if found is None or not report else (module, found)
