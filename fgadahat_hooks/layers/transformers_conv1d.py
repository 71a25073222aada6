"""`Conv1D` of transformers, the linear layer of GPT-2: weight `(in, out)`, units on the last axis of the output.

Recognised by the name of its class, without importing transformers.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar, cast

from torch import Tensor, nn

from fgadahat_hooks import registry
from fgadahat_hooks.layers.base import LayerType, weight_of

_STD = 0.02
"""Standard deviation of the weights that its constructor draws."""


@registry.layer_types.register("Conv1D")
class TransformersConv1DType(LayerType):
    """A unit is an output feature; the weight is the transpose of a linear layer's."""

    module_class: ClassVar[type[nn.Module] | str] = "transformers.pytorch_utils.Conv1D"
    unit_axis: ClassVar[int] = -1
    weight_axis: ClassVar[int] = 1
    shorthand: ClassVar[str] = "all-linear"

    def units(self, module: nn.Module) -> int:
        """Return the number of output features."""
        return weight_of(module).shape[1]

    def inputs(self, module: nn.Module) -> int:
        """Return the number of input features."""
        return weight_of(module).shape[0]

    def unit_view(self, module: nn.Module, values: Tensor) -> Tensor:
        """Reshape `(out,)` to `(1, out)`."""
        return values.reshape(1, -1)

    def input_view(self, module: nn.Module, values: Tensor) -> Tensor:
        """Reshape `(in,)` to `(in, 1)`."""
        return values.reshape(-1, 1)

    def sum_by_unit(self, module: nn.Module, x: Tensor) -> Tensor:
        """Sum `(in, out)` over the inputs: `(out,)`."""
        return x.sum(0)

    def sum_by_input(self, module: nn.Module, x: Tensor) -> Tensor:
        """Sum `(in, out)` over the units: `(in,)`."""
        return x.sum(1)

    def update_sizes(self, module: nn.Module) -> None:
        """Set `nx` and `nf`."""
        layer = cast("Any", module)
        layer.nx, layer.nf = layer.weight.shape

    def reset_function(self, module: nn.Module) -> Callable[[], object] | None:
        """Return a function that draws normal weights and zeroes the bias, unless the class has `reset_parameters`."""
        return super().reset_function(module) or partial(_initialise, module)


def _initialise(module: nn.Module) -> None:
    nn.init.normal_(weight_of(module), std=_STD)
    nn.init.zeros_(module.get_parameter("bias"))
