"""Measures each unit's importance for the running task (FG-AdaHAT Eq. 4 to 6)."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from fgadahat_hooks import registry
from fgadahat_hooks.callbacks.base import Callback, optimizer_parameters
from fgadahat_hooks.callbacks.layer_probe import LayerProbe
from fgadahat_hooks.callbacks.model_probe import ModelProbe, Target
from fgadahat_hooks.callbacks.probe import Probe
from fgadahat_hooks.callbacks.stride import Stride
from fgadahat_hooks.distributed.ranks import mean_over_ranks
from fgadahat_hooks.errors import BadCallError, NonFiniteError
from fgadahat_hooks.functional.scale import finish_importance, min_max_per_layer
from fgadahat_hooks.gates.context import GatedLayer, TaskContext
from fgadahat_hooks.graph.trace import ExampleInputs
from fgadahat_hooks.graph.unit_graph import UnitGraph
from fgadahat_hooks.importance import AttributionMeasure, BaseMeasure
from fgadahat_hooks.spec.attach_spec import to_importance


class ImportanceCallback(Callback):
    """Accumulates a measure over the steps of a task.

    One step: the raw measure of each layer on the weights before the step and the gradients before any adjustment,
    scaled to [0, 1] within the layer, times the training mask, added up. At the end of the task: the mean over the
    measured steps, plus the base importance, zero outside the task's mask.

    Args:
        spec: Block `importance` of a spec, or a dict.
        base_importance: `b_I` >= 0, added to every unit at the end of the task (FG-AdaHAT Eq. 6).
        target: What an attribution measure attributes: a function of the model's output and the loader's batch that
            returns one number a sample, `(batch,)`. The logit of the true label when left out.
    """

    key: ClassVar[str] = "importance"
    priority: ClassVar[int] = 10

    def __init__(self, spec: Any = None, base_importance: float = 0.01, target: Target | None = None) -> None:
        """Look up the measure and check its parameters.

        Raises:
            SpecError: The spec is not valid.
            BadCallError: `target` is no function.
        """
        self.spec = to_importance({} if spec is None else spec)
        self.base_importance = base_importance
        if target is not None and not callable(target):
            raise BadCallError(f"Expected `target` to be a function of output and batch, but got {target!r}.")
        self.target = target
        self.measure: BaseMeasure = registry.measures.get(self.spec.type)(**self.spec.params)
        if self.spec.gradient == "adjusted":
            self.priority = 95  # type: ignore[misc]  # after the adjustment, as in the reference
        self._reset()

    def _reset(self) -> None:
        self._total: Tensor | None = None
        self._measured: Tensor | None = None
        self._strides: dict[str, Stride] = {}
        self._steps = 0
        self._probe = probe_for(self.measure, self.target, self.spec.max_samples)

    def check(self, model: nn.Module, graph: UnitGraph, example_inputs: ExampleInputs) -> None:
        """Refuse a model on which the measure cannot be computed, before anything is attached to it.

        Args:
            model: The model, not yet attached.
            graph: Its unit graph.
            example_inputs: The inputs it was traced with.

        Raises:
            CapabilityError: Names the layers or the module, and what to use instead.
        """
        self._probe.check(model, graph, example_inputs)

    # ---------------------------------------------------------------- events
    def on_task_start(self, context: TaskContext) -> None:
        """Start with empty sums; install the hooks that the measure needs.

        Raises:
            CapabilityError: The measure cannot be computed on this model.
        """
        self._reset()
        self._probe.install_hooks(context)

    def on_gradients_ready(self, context: TaskContext, optimizer: Optimizer) -> None:
        """Measure this step on its raw gradients."""
        if self.spec.gradient == "raw":
            self._measure(context, optimizer)

    def on_before_optimizer_step(self, context: TaskContext, optimizer: Optimizer) -> None:
        """Measure this step on its adjusted gradients, as the reference implementation does."""
        if self.spec.gradient == "adjusted":
            self._measure(context, optimizer)

    def _measure(self, context: TaskContext, optimizer: Optimizer) -> None:
        """Measure this step, on the layers whose weights the optimizer holds."""
        held = optimizer_parameters(optimizer)
        layers = [layer for layer in context.layers.values() if id(layer.weight) in held]
        if not layers:
            return
        stride = self._strides.setdefault(layers[0].info.name, Stride(self.spec.every_n_steps, self.spec.budget))
        self._steps += 1
        if stride.due():
            begin = time.perf_counter()
            self._accumulate(context, layers)
            stride.record_measuring_time(time.perf_counter() - begin)
        self._probe.mark_step()

    def on_task_end(self, context: TaskContext) -> None:
        """Put the task's importance into its record."""
        if self._total is not None and self._measured is not None:
            mask = context.graph.join(context.record.masks).to(self._total) if self.spec.filter_unmasked else None
            importance = finish_importance(self._total, self._measured.clamp(min=1), self.base_importance, mask)
            context.record.importance = {n: v.clone() for n, v in context.graph.split(importance).items()}
        self._reset()

    def on_task_abort(self, context: TaskContext) -> None:
        """Discard the accumulated steps."""
        self._reset()

    # ---------------------------------------------------------------- one step
    def _accumulate(self, context: TaskContext, layers: list[GatedLayer]) -> None:
        with torch.no_grad():
            measured = self._probe.raw_importance(context, layers)
            parts = [self._measured_or_zeros(measured.get(n), layer, context) for n, layer in context.layers.items()]
            raw = mean_over_ranks(torch.cat(parts), self._probe.samples, context.data)
            if not bool(torch.isfinite(raw.sum())):  # checked after the mean over ranks, so that all ranks raise
                raise NonFiniteError(self._non_finite_message(context, context.graph.split(raw)))
            step = min_max_per_layer(raw, context.layer_of_unit, len(parts))
            if self.spec.multiply_training_mask:
                step = step * context.soft_masks().to(step)
            count = torch.cat(
                [step.new_full((layer.info.units,), n in measured) for n, layer in context.layers.items()]
            )
            self._total = step if self._total is None else self._total + step
            self._measured = count if self._measured is None else self._measured + count

    @staticmethod
    def _measured_or_zeros(measured: Tensor | None, layer: GatedLayer, context: TaskContext) -> Tensor:
        """Return a layer's measure with the dtype and device of all units; 0 for a layer not in the optimizer."""
        like = context.cumulative
        return like.new_zeros(layer.info.units) if measured is None else measured.to(like)

    def _non_finite_message(self, context: TaskContext, raw: Mapping[str, Tensor]) -> str:
        bad = [name for name, value in raw.items() if not bool(torch.isfinite(value).all())]
        return (
            f"Measure '{self.spec.type}' gave NaN or infinity for layer '{bad[0]}' in step {self._steps} of task "
            f"{context.task!r} ({len(bad)} of {len(raw)} layers). Nothing was added to the importance and no parameter "
            "was changed. The loss or its gradients are not finite: lower the learning rate, or clip gradients."
        )

    @property
    def allows_closure(self) -> bool:
        """Never: the gradients of the step must exist before it."""
        return False

    def state_dict(self) -> dict[str, Any]:
        """Return the sums of the running task, its number of steps, and the state of the measure."""
        return {
            "total": self._total,
            "measured": self._measured,
            "steps": self._steps,
            "strides": {name: stride.state_dict() for name, stride in self._strides.items()},
            "measure": self.measure.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self._total, self._measured, self._steps = state["total"], state["measured"], state["steps"]
        self._strides = {name: Stride(self.spec.every_n_steps, self.spec.budget) for name in state["strides"]}
        for name, stride in self._strides.items():
            stride.load_state_dict(state["strides"][name])
        self.measure.load_state_dict(state["measure"])


def probe_for(measure: BaseMeasure, target: Target | None = None, max_samples: int | None = None) -> Probe:
    """Return the probe for a measure of this kind."""
    if isinstance(measure, AttributionMeasure):
        return ModelProbe(measure, target, max_samples)
    return LayerProbe(measure)  # type: ignore[arg-type]  # the registry takes no third kind
