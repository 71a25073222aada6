"""`Conv1D` of transformers, the linear layer of GPT-2 and its kin: weight `(in, out)`, units on the last output axis.

Recognised by its class, without importing the library.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar, cast

from torch import Tensor, nn

from fgadahat_hooks import registry
from fgadahat_hooks.layers.base import LayerType

_STD = 0.02
"""Of the weights that its constructor draws."""


@registry.layer_types.register("Conv1D")
class TransformersConv1DType(LayerType):
    """A unit is an output feature, as of a linear layer, whose weight is the transpose of this one."""

    module_class: ClassVar[type[nn.Module] | str] = "transformers.pytorch_utils.Conv1D"
    unit_axis: ClassVar[int] = -1
    weight_axis: ClassVar[int] = 1
    shorthand: ClassVar[str] = "all-linear"

    def units(self, module: nn.Module) -> int:
        """Return the number of output features."""
        return module.get_parameter("weight").shape[1]

    def inputs(self, module: nn.Module) -> int:
        """Return the number of input features."""
        return module.get_parameter("weight").shape[0]

    def own_view(self, module: nn.Module, values: Tensor) -> Tensor:
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

    def tell_sizes(self, module: nn.Module) -> None:
        """Set `nx` and `nf`."""
        layer = cast("Any", module)
        layer.nx, layer.nf = layer.weight.shape

    def reset_of(self, module: nn.Module) -> Callable[[], object] | None:
        """Return what draws normal weights and sets the bias to zero; the class has no `reset_parameters`."""
        return super().reset_of(module) or partial(_draw, module)


def _draw(module: nn.Module) -> None:
    nn.init.normal_(module.get_parameter("weight"), std=_STD)
    nn.init.zeros_(module.get_parameter("bias"))
