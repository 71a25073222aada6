"""Gives a closed-form measure its view of a layer in one step: weights, gradients, activations and consumers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from fgadahat_hooks.callbacks.probe import Probe, refuse_layers
from fgadahat_hooks.gates.context import GatedLayer, TaskContext
from fgadahat_hooks.graph.trace import ExampleInputs
from fgadahat_hooks.graph.unit_graph import Consumer, UnitGraph
from fgadahat_hooks.importance import ConsumerView, LayerView, Measure
from fgadahat_hooks.importance.attribution.shapes import broadcast_along
from fgadahat_hooks.layers import weight_of

_Sums = dict[str, dict[Callable[..., Tensor], Tensor]]
"""For each consumer, the sums over its weight that were computed in this step, by term."""


class LayerProbe(Probe):
    """Collects mean activations; weights and gradients are read when a step is made.

    Attributes:
        gradients: Gradients of weights by the weights' identity, used instead of their `.grad`.
    """

    def __init__(self, measure: Measure, *, every_forward: bool = False) -> None:
        """Take the measure.

        Args:
            measure: The measure.
            every_forward: Record every forward, not only those that are trained on.
        """
        super().__init__()
        self.measure = measure
        self.gradients: dict[int, Tensor] | None = None
        self._every_forward = every_forward
        self._activations: dict[str, tuple[Tensor, float]] = {}
        self._signed: dict[str, Tensor] = {}
        self._consumers: dict[str, list[Consumer]] = {}

    def check(self, model: nn.Module, graph: UnitGraph, example_inputs: ExampleInputs | None = None) -> None:
        """Refuse a measure that needs what the unit graph does not have."""
        check_capable(self.measure, graph)

    def install_hooks(self, context: TaskContext) -> None:
        """Record the outputs of the layers, if the measure needs activations.

        Raises:
            CapabilityError: The measure cannot be computed on this model.
        """
        self.check(context.model, context.graph)
        self._consumers = {}
        if "activation" in self.measure.needs:
            self.track_gradients(context)
            for layer in context.layers.values():
                self._hook_activation(context, layer)

    def raw_importance(self, context: TaskContext, layers: list[GatedLayer]) -> dict[str, Tensor]:
        """Return the measure of each layer, `(units,)`."""
        sums: _Sums = {}
        return {layer.info.name: self.measure.compute(self._view(context, layer, sums)) for layer in layers}

    def discard(self) -> None:
        """Discard the activations."""
        self._activations.clear()
        self._signed.clear()

    @property
    def samples(self) -> float:  # type: ignore[override]
        """Number of samples whose activations were recorded; 0 if the measure needs none."""
        return max((count for _, count in self._activations.values()), default=0.0)

    # ---------------------------------------------------------------- views
    def _view(self, context: TaskContext, layer: GatedLayer, sums: _Sums) -> LayerView:
        name = layer.info.name
        consumers = tuple(self._consumer_view(context, c, sums) for c in self._consumers_of(context, layer))
        total, count = self._activations.get(name, (None, 0.0))
        activation = None if total is None else total / count
        signed = self._signed[name] / count if name in self._signed else None
        weight, units = layer.weight, layer.info.units
        gradient = self._gradient(weight)
        return LayerView(name, layer.module, layer.kind, units, weight, gradient, activation, consumers, signed)

    def _consumer_view(self, context: TaskContext, consumer: Consumer, sums: _Sums) -> ConsumerView:
        name = consumer.layer
        module, kind = context.readers[name]
        weight = weight_of(module)
        gradient, own_sums = self._gradient(weight), sums.setdefault(name, {})
        return ConsumerView(name, module, kind, weight, gradient, consumer.unit, consumer.feature, own_sums)

    def _gradient(self, weight: Tensor) -> Tensor | None:
        return weight.grad if self.gradients is None else self.gradients.get(id(weight))

    def _consumers_of(self, context: TaskContext, layer: GatedLayer) -> list[Consumer]:
        """Return a layer's consumers, looked up once a task, if the measure needs them."""
        if "consumers" not in self.measure.needs:
            return []
        name, device = layer.info.name, layer.weight.device
        if name not in self._consumers:
            found = context.graph.consumers(name)
            self._consumers[name] = [Consumer(c.layer, c.unit.to(device), c.feature.to(device)) for c in found]
        return self._consumers[name]

    # ---------------------------------------------------------------- activations
    def _hook_activation(self, context: TaskContext, layer: GatedLayer) -> None:
        """Record the layer's activation in each forward that will be trained on."""
        if layer.reader is None:
            return

        def record(_: nn.Module, __: Any, output: Any) -> None:
            output = output[0] if isinstance(output, tuple) else output
            trained_on = torch.is_grad_enabled() and layer.gate.training
            if (trained_on or self._every_forward) and len(output):
                self.discard_if_stale()
                with torch.no_grad():
                    self._record_activation(layer, output.detach())

        context.hooks.forward(layer.reader, record)

    def _record_activation(self, layer: GatedLayer, output: Tensor) -> None:
        """Add the sum over samples of the mean of `|h|`, or of `|h - c|`, and of `h` if the measure needs it."""
        info, dtype = layer.info, layer.gate.embedding.dtype
        h = output if info.activation is None else info.activation(output)
        samples, other_axes = h.shape[0], [d for d in range(h.dim()) if d != info.output_axis % h.dim()]
        if "signed_activation" in self.measure.needs:
            self._signed[info.name] = self._signed.get(info.name, 0.0) + h.mean(other_axes, dtype=dtype) * samples
        centre = self.measure.centre(info.name)
        h = h if centre is None else h - broadcast_along(centre.to(h), h, info.output_axis)
        mean = h.abs().mean(other_axes, dtype=dtype)
        total, count = self._activations.get(info.name, (0.0, 0.0))
        self._activations[info.name] = (total + mean * samples, count + samples)


def check_capable(measure: Measure, graph: UnitGraph) -> None:
    """Refuse a measure that cannot be computed on a model.

    Raises:
        CapabilityError: Names the layers and what to use instead.
    """
    if "activation" in measure.needs:
        hidden = [name for name, layer in graph.layers.items() if layer.output_module is None]
        need = "the activations of {} that the model uses functionally, so that no module puts them out"
        refuse_layers(measure.name, hidden, need)
    if "consumers" in measure.needs:
        unread = [name for name in graph.layers if not graph.consumers(name)]
        need = "the weights that read each unit, but of {} no reader is known (a norm or an unknown operation hides it)"
        refuse_layers(measure.name, unread, need)
