"""Measures each unit's importance for the running task (FG-AdaHAT Eq. 4 to 6)."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from fgadahat_hooks import registry
from fgadahat_hooks.callbacks.base import Callback, GatedLayer, TaskContext, optimizer_parameters
from fgadahat_hooks.errors import CapabilityError, NonFiniteError
from fgadahat_hooks.functional.scale import finish_importance, min_max_joined
from fgadahat_hooks.graph import Consumer, UnitGraph
from fgadahat_hooks.importance import ConsumerView, LayerView, Measure
from fgadahat_hooks.spec import to_importance

_SHOWN = 5
"""How many layers an error names."""


class ImportanceCallback(Callback):
    """Accumulates a measure over the steps of a task.

    One step: the raw measure of each layer on the weights before the step and the gradients before any adjustment,
    scaled to [0, 1] within the layer, times the training mask, added up. At the end of the task: the mean over the
    measured steps, plus the base importance, zero outside the task's mask.

    Args:
        spec: Block `importance` of a spec, or a dict.
        base_importance: `b_I` >= 0, added to every unit at the end of the task (FG-AdaHAT Eq. 6).
    """

    key: ClassVar[str] = "importance"
    priority: ClassVar[int] = 10

    def __init__(self, spec: Any = None, base_importance: float = 0.01) -> None:
        """Look the measure up and check its parameters."""
        self.spec = to_importance({} if spec is None else spec)
        self.base_importance = base_importance
        self.measure: Measure = registry.measures.get(self.spec.type)(**self.spec.params)
        if self.spec.gradient == "adjusted":
            self.priority = 95  # type: ignore[misc]  # after the adjustment, as the reference has it
        self._reset()

    def _reset(self) -> None:
        self._total: Tensor | None = None
        self._measured = 0
        self._steps = 0
        self._activations: dict[str, tuple[Tensor, float]] = {}
        self._consumers: dict[str, list[Consumer]] = {}

    # ---------------------------------------------------------------- events
    def on_task_start(self, context: TaskContext) -> None:
        """Start from nothing; watch the outputs if the measure needs them.

        Raises:
            CapabilityError: The measure cannot be computed on this model.
        """
        self._reset()
        check_capable(self.measure, context.graph)
        if "activation" in self.measure.needs:
            for layer in context.layers.values():
                self._watch(context, layer)

    def on_gradients_ready(self, context: TaskContext, optimizer: Optimizer) -> None:
        """Measure this step on its raw gradients."""
        if self.spec.gradient == "raw":
            self._measure(context, optimizer)

    def on_before_optimizer_step(self, context: TaskContext, optimizer: Optimizer) -> None:
        """Measure this step on its adjusted gradients, as the reference implementation does."""
        if self.spec.gradient == "adjusted":
            self._measure(context, optimizer)

    def _measure(self, context: TaskContext, optimizer: Optimizer) -> None:
        """Measure this step, on the layers whose weights the optimizer steps."""
        held = optimizer_parameters(optimizer)
        layers = [layer for layer in context.layers.values() if id(layer.weight) in held]
        if not layers:
            return
        if self._steps % self.spec.every_n_steps == 0:
            self._accumulate(context, layers)
            self._measured += 1
        self._steps += 1
        self._activations.clear()

    def on_task_end(self, context: TaskContext) -> None:
        """Put the task's importance into its record."""
        if self._total is not None and self._measured:
            mask = context.graph.join(context.record.masks).to(self._total) if self.spec.filter_unmasked else None
            done = finish_importance(self._total, self._measured, self.base_importance, mask)
            context.record.importance = {n: v.clone() for n, v in context.graph.split(done).items()}
        self._reset()

    def on_task_abort(self, context: TaskContext) -> None:
        """Forget the accumulated steps."""
        self._reset()

    # ---------------------------------------------------------------- one step
    def _accumulate(self, context: TaskContext, layers: list[GatedLayer]) -> None:
        with torch.no_grad():
            measured = {layer.info.name: self.measure.compute(self._view(context, layer)) for layer in layers}
            parts = {n: self._part(measured.get(n), layer, context) for n, layer in context.layers.items()}
            raw = torch.cat(list(parts.values()))
            if not bool(torch.isfinite(raw.sum())):
                raise NonFiniteError(self._complain(context, parts))
            step = min_max_joined(raw, context.layer_of_unit, len(parts))
            if self.spec.multiply_training_mask:
                step = step * context.soft_masks().to(step)
            self._total = step if self._total is None else self._total + step

    @staticmethod
    def _part(measured: Tensor | None, layer: GatedLayer, context: TaskContext) -> Tensor:
        """Return a layer's measure where all units are joined; zero for a layer that this optimizer does not step."""
        like = context.cumulative
        return like.new_zeros(layer.info.units) if measured is None else measured.to(like)

    def _complain(self, context: TaskContext, raw: dict[str, Tensor]) -> str:
        bad = [name for name, value in raw.items() if not bool(torch.isfinite(value).all())]
        return (
            f"Measure '{self.spec.type}' gave NaN or infinity for layer '{bad[0]}' in step {self._steps + 1} of task "
            f"{context.task!r} ({len(bad)} of {len(raw)} layers). Nothing was added to the importance and no parameter "
            "was changed. The loss or its gradients are not finite: lower the learning rate, or clip gradients."
        )

    def _view(self, context: TaskContext, layer: GatedLayer) -> LayerView:
        name = layer.info.name
        consumers = []
        for c in self._consumers_of(context, layer):
            module, kind = context.readers[c.layer]
            weight = module.get_parameter("weight")
            consumers.append(ConsumerView(c.layer, module, kind, weight, weight.grad, c.unit, c.feature))
        total, count = self._activations.get(name, (None, 0.0))
        activation = None if total is None else total / count
        weight = layer.weight
        return LayerView(
            name, layer.module, layer.kind, layer.info.units, weight, weight.grad, activation, tuple(consumers)
        )

    def _consumers_of(self, context: TaskContext, layer: GatedLayer) -> list[Consumer]:
        """Return who reads a layer, looked up once a task, if the measure needs to know."""
        if "consumers" not in self.measure.needs:
            return []
        name, device = layer.info.name, layer.weight.device
        if name not in self._consumers:
            found = context.graph.consumers(name)
            self._consumers[name] = [Consumer(c.layer, c.unit.to(device), c.feature.to(device)) for c in found]
        return self._consumers[name]

    # ---------------------------------------------------------------- activations
    def _watch(self, context: TaskContext, layer: GatedLayer) -> None:
        """Keep the mean of `|h|` of each forward that will be trained on."""
        name, axis, activation = layer.info.name, layer.info.read_axis, layer.info.activation

        def see(_: nn.Module, __: Any, output: Any) -> None:
            output = output[0] if isinstance(output, tuple) else output
            if not torch.is_grad_enabled() or not layer.gate.training:
                return
            with torch.no_grad():
                h = output.detach() if activation is None else activation(output.detach())
                mean = h.abs().mean(
                    [d for d in range(h.dim()) if d != axis % h.dim()], dtype=layer.gate.embedding.dtype
                )
                before, count = self._activations.get(name, (0.0, 0.0))
                self._activations[name] = (before + mean * h.shape[0], count + h.shape[0])

        if layer.reader is not None:
            context.hooks.forward(layer.reader, see)

    @property
    def allows_closure(self) -> bool:
        """Never: the gradients of the step must exist before it."""
        return False

    def state_dict(self) -> dict[str, Any]:
        """Return the sums of the running task."""
        return {"total": self._total, "measured": self._measured, "steps": self._steps}

    def load_state_dict(self, state: Any) -> None:
        """Take the sums of a running task back."""
        self._total, self._measured, self._steps = state["total"], state["measured"], state["steps"]


def check_capable(measure: Measure, graph: UnitGraph) -> None:
    """Refuse a measure that cannot be computed on a model.

    Raises:
        CapabilityError: Names the layers and what to use instead.
    """
    if "activation" in measure.needs:
        hidden = [name for name, layer in graph.layers.items() if layer.read is None]
        what = "the activations of {} that the model uses functionally, so that no module puts them out"
        _refuse(measure.name, hidden, what)
    if "consumers" in measure.needs:
        unread = [name for name in graph.layers if not graph.consumers(name)]
        what = "the weights that read each unit, but of {} no reader is known (a norm or an unknown operation hides it)"
        _refuse(measure.name, unread, what)


def _refuse(measure: str, layers: list[str], what: str) -> None:
    if layers:
        named = ", ".join(f"'{name}'" for name in layers[:_SHOWN]) + (", ..." if len(layers) > _SHOWN else "")
        needs = what.format("1 layer" if len(layers) == 1 else f"{len(layers)} layers")
        raise CapabilityError(
            f"Measure '{measure}' needs {needs}: {named}. Choose a measure of the layer's own weights or gradients, "
            "e.g. importance.type: 'input_weight_abs_sum', or add these layers to gates.exclude."
        )
