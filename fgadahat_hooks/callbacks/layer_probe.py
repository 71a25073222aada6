"""Shows a closed-form measure one layer of one step: weights, gradients, activations and readers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from fgadahat_hooks.callbacks.probe import Probe, refuse
from fgadahat_hooks.gates.context import GatedLayer, TaskContext
from fgadahat_hooks.graph.trace import ExampleInputs
from fgadahat_hooks.graph.unit_graph import Consumer, UnitGraph
from fgadahat_hooks.importance import ConsumerView, LayerView, Measure
from fgadahat_hooks.importance.attribution.shapes import along

_Sums = dict[str, dict[Callable[..., Tensor], Tensor]]
"""For each layer that reads, what was summed up over it in one step."""


class LayerProbe(Probe):
    """Collects mean activations; weights and gradients are there when a step is made.

    Attributes:
        gradients: Gradients of weights by the weights' identity, in place of their `.grad`.
    """

    def __init__(self, measure: Measure, *, always: bool = False) -> None:
        """Take the measure.

        Args:
            measure: The measure.
            always: Watch every forward, not only those that are trained on.
        """
        super().__init__()
        self.measure = measure
        self.gradients: dict[int, Tensor] | None = None
        self._always = always
        self._activations: dict[str, tuple[Tensor, float]] = {}
        self._signed: dict[str, Tensor] = {}
        self._consumers: dict[str, list[Consumer]] = {}

    def check(self, model: nn.Module, graph: UnitGraph, example_inputs: ExampleInputs | None = None) -> None:
        """Refuse a measure that needs what the unit graph does not know."""
        check_capable(self.measure, graph)

    def watch(self, context: TaskContext) -> None:
        """Watch the outputs, if the measure needs activations.

        Raises:
            CapabilityError: The measure cannot be computed on this model.
        """
        self.check(context.model, context.graph)
        self._consumers = {}
        if "activation" in self.measure.needs:
            self.watch_gradients(context)
            for layer in context.layers.values():
                self._watch(context, layer)

    def raw(self, context: TaskContext, layers: list[GatedLayer]) -> dict[str, Tensor]:
        """Return the measure of each layer, `(units,)`."""
        sums: _Sums = {}
        return {layer.info.name: self.measure.compute(self._view(context, layer, sums)) for layer in layers}

    def forget(self) -> None:
        """Forget the activations."""
        self._activations.clear()
        self._signed.clear()

    @property
    def samples(self) -> float:  # type: ignore[override]
        """Number of samples whose activations were seen; 0 if none are watched."""
        return max((count for _, count in self._activations.values()), default=0.0)

    # ---------------------------------------------------------------- views
    def _view(self, context: TaskContext, layer: GatedLayer, sums: _Sums) -> LayerView:
        name = layer.info.name
        consumers = []
        for c in self._consumers_of(context, layer):
            module, kind = context.readers[c.layer]
            weight = module.get_parameter("weight")
            made, gradient = sums.setdefault(c.layer, {}), self._gradient(weight)
            consumers.append(ConsumerView(c.layer, module, kind, weight, gradient, c.unit, c.feature, made))
        total, count = self._activations.get(name, (None, 0.0))
        activation = None if total is None else total / count
        signed = self._signed[name] / count if name in self._signed else None
        weight, units = layer.weight, layer.info.units
        gradient = self._gradient(weight)
        return LayerView(name, layer.module, layer.kind, units, weight, gradient, activation, tuple(consumers), signed)

    def _gradient(self, weight: Tensor) -> Tensor | None:
        return weight.grad if self.gradients is None else self.gradients.get(id(weight))

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
        """Keep the mean of `|h|`, or of `|h - c|`, of each forward that will be trained on."""
        name, axis, activation = layer.info.name, layer.info.read_axis, layer.info.activation
        signed = "signed_activation" in self.measure.needs

        def see(_: nn.Module, __: Any, output: Any) -> None:
            output = output[0] if isinstance(output, tuple) else output
            trained_on = torch.is_grad_enabled() and layer.gate.training
            if not (trained_on or self._always) or not len(output):
                return
            self.refresh()
            with torch.no_grad():
                h = output.detach() if activation is None else activation(output.detach())
                over, dtype = [d for d in range(h.dim()) if d != axis % h.dim()], layer.gate.embedding.dtype
                if signed:
                    self._signed[name] = self._signed.get(name, 0.0) + h.mean(over, dtype=dtype) * h.shape[0]
                centre = self.measure.centre(name)
                h = h if centre is None else h - along(centre.to(h), h, axis)
                mean = h.abs().mean(over, dtype=dtype)
                before, count = self._activations.get(name, (0.0, 0.0))
                self._activations[name] = (before + mean * h.shape[0], count + h.shape[0])

        if layer.reader is not None:
            context.hooks.forward(layer.reader, see)


def check_capable(measure: Measure, graph: UnitGraph) -> None:
    """Refuse a measure that cannot be computed on a model.

    Raises:
        CapabilityError: Names the layers and what to use instead.
    """
    if "activation" in measure.needs:
        hidden = [name for name, layer in graph.layers.items() if layer.read is None]
        what = "the activations of {} that the model uses functionally, so that no module puts them out"
        refuse(measure.name, hidden, what)
    if "consumers" in measure.needs:
        unread = [name for name in graph.layers if not graph.consumers(name)]
        what = "the weights that read each unit, but of {} no reader is known (a norm or an unknown operation hides it)"
        refuse(measure.name, unread, what)
