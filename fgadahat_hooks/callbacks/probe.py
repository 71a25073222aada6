"""What stands between a task's events and a measure: it watches, and at a step it lets the measure compute."""

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
    forgotten, too, when the gradients that came of it were thrown away, as with a step that a gradient scaler skips.
    """

    samples: float = 0.0
    """Number of samples collected."""

    def __init__(self) -> None:
        """Have nothing yet."""
        self._stale = False
        self._backward_done = False
        self._witness: nn.Parameter | None = None

    @abstractmethod
    def check(self, model: nn.Module, graph: UnitGraph, example_inputs: ExampleInputs) -> None:
        """Refuse a model on which the measure cannot be computed.

        Raises:
            CapabilityError: Names the layers or the module, and what to use instead.
        """

    @abstractmethod
    def watch(self, context: TaskContext) -> None:
        """Install hooks that live until the task ends."""

    @abstractmethod
    def raw(self, context: TaskContext, layers: list[GatedLayer]) -> dict[str, Tensor]:
        """Return the raw measure of some layers, `(units,)` each, on what was collected."""

    @abstractmethod
    def forget(self) -> None:
        """Forget what was collected."""

    def stepped(self) -> None:
        """Know that a step was made: the next forward starts anew."""
        self._stale = True

    def watch_gradients(self, context: TaskContext) -> None:
        """Learn from one trained weight when gradients have come; that they are gone can then be seen."""
        trained = [layer.weight for layer in context.layers.values() if layer.weight.requires_grad]
        if trained:
            self._witness = trained[0]
            context.hooks.accumulated(self._witness, self._gradient_came)

    def _gradient_came(self, _: Tensor) -> None:
        self._backward_done = True

    def refresh(self) -> None:
        """Start anew if, since the last forward, a step was made or gradients came and went."""
        gone = self._backward_done and self._witness is not None and self._witness.grad is None
        if self._stale or gone:
            self.forget()
            self._stale, self._backward_done = False, False


def refuse(measure: str, layers: Iterable[str], what: str) -> None:
    """Refuse a measure that needs what some layers do not have.

    Args:
        measure: Name of the measure.
        layers: The layers; nothing happens if there are none.
        what: What is needed, with a place for how many layers.

    Raises:
        CapabilityError: Names the layers and what to use instead.
    """
    layers = list(layers)
    if layers:
        named = ", ".join(f"'{name}'" for name in layers[:_SHOWN]) + (", ..." if len(layers) > _SHOWN else "")
        needs = what.format("1 layer" if len(layers) == 1 else f"{len(layers)} layers")
        raise CapabilityError(
            f"Measure '{measure}' needs {needs}: {named}. Choose a measure of the layer's own weights or gradients, "
            "e.g. importance.type: 'input_weight_abs_sum', or add these layers to gates.exclude."
        )
