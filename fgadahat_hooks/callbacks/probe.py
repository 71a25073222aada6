"""What connects a task's events with a measure: it collects during forwards, and computes the measure at a step."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable

from torch import Tensor, nn

from fgadahat_hooks.errors import CapabilityError
from fgadahat_hooks.gates.context import GatedLayer, TaskContext
from fgadahat_hooks.graph.trace import ExampleInputs
from fgadahat_hooks.graph.unit_graph import UnitGraph

_SHOWN = 5
"""How many layers an error names."""


class Probe(ABC):
    """Collects what a measure needs between two steps.

    What was collected stays until the next forward after a step: several optimizers may step on one forward. It is
    also discarded if the gradients computed from it were cleared without a step, as when a gradient scaler skips one.
    """

    samples: float = 0.0
    """Number of samples collected."""

    def __init__(self) -> None:
        """Start with nothing collected."""
        self._step_made = False
        self._backward_done = False
        self._sentinel: nn.Parameter | None = None

    @abstractmethod
    def check(self, model: nn.Module, graph: UnitGraph, example_inputs: ExampleInputs) -> None:
        """Refuse a model on which the measure cannot be computed.

        Raises:
            CapabilityError: Names the layers or the module, and what to use instead.
        """

    @abstractmethod
    def install_hooks(self, context: TaskContext) -> None:
        """Install hooks that live until the task ends."""

    @abstractmethod
    def raw_importance(self, context: TaskContext, layers: list[GatedLayer]) -> dict[str, Tensor]:
        """Return the raw measure of some layers, `(units,)` each, from what was collected."""

    @abstractmethod
    def discard(self) -> None:
        """Discard what was collected."""

    def mark_step(self) -> None:
        """Note that a step was made: the next forward starts a new collection."""
        self._step_made = True

    def track_gradients(self, context: TaskContext) -> None:
        """Watch one trained weight for gradients, so that `discard_if_stale` notices when they were cleared."""
        trained = [layer.weight for layer in context.layers.values() if layer.weight.requires_grad]
        if trained:
            self._sentinel = trained[0]
            context.hooks.accumulated(self._sentinel, self._mark_backward)

    def _mark_backward(self, _: Tensor) -> None:
        self._backward_done = True

    def discard_if_stale(self) -> None:
        """Start a new collection if, since the last forward, a step was made or gradients came and were cleared."""
        cleared = self._backward_done and self._sentinel is not None and self._sentinel.grad is None
        if self._step_made or cleared:
            self.discard()
            self._step_made, self._backward_done = False, False


def refuse_layers(measure: str, layers: Iterable[str], need: str) -> None:
    """Refuse a measure that needs what some layers do not have.

    Args:
        measure: Name of the measure.
        layers: The layers; nothing happens if there are none.
        need: What is needed, with a placeholder `{}` for the number of layers.

    Raises:
        CapabilityError: Names the layers and what to use instead.
    """
    layers = list(layers)
    if layers:
        named = ", ".join(f"'{name}'" for name in layers[:_SHOWN]) + (", ..." if len(layers) > _SHOWN else "")
        needs = need.format("1 layer" if len(layers) == 1 else f"{len(layers)} layers")
        raise CapabilityError(
            f"Measure '{measure}' needs {needs}: {named}. Choose a measure of the layer's own weights or gradients, "
            "e.g. importance.type: 'input_weight_abs_sum', or add these layers to gates.exclude."
        )
