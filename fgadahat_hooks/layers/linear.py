"""`nn.Linear`: weight `(out, in)`, units on the last axis of the output."""

from __future__ import annotations

from typing import ClassVar, cast

from torch import Tensor, nn

from fgadahat_hooks import registry
from fgadahat_hooks.layers.base import LayerType, weight_of


@registry.layer_types.register("Linear")
class LinearType(LayerType):
    """A unit is an output feature; inputs and outputs may have any leading axes, e.g. `(batch, tokens, features)`."""

    module_class: ClassVar[type[nn.Module] | str] = nn.Linear
    unit_axis: ClassVar[int] = -1
    shorthand: ClassVar[str] = "all-linear"

    def units(self, module: nn.Module) -> int:
        """Return the number of output features."""
        return weight_of(module).shape[0]

    def inputs(self, module: nn.Module) -> int:
        """Return the number of input features."""
        return weight_of(module).shape[1]

    def unit_view(self, module: nn.Module, values: Tensor) -> Tensor:
        """Reshape `(out,)` to `(out, 1)`."""
        return values.reshape(-1, 1)

    def input_view(self, module: nn.Module, values: Tensor) -> Tensor:
        """Reshape `(in,)` to `(1, in)`."""
        return values.reshape(1, -1)

    def sum_by_unit(self, module: nn.Module, x: Tensor) -> Tensor:
        """Sum `(out, in)` over the inputs: `(out,)`."""
        return x.sum(1)

    def sum_by_input(self, module: nn.Module, x: Tensor) -> Tensor:
        """Sum `(out, in)` over the units: `(in,)`."""
        return x.sum(0)

    def update_sizes(self, module: nn.Module) -> None:
        """Set `out_features` and `in_features`."""
        layer = cast("nn.Linear", module)
        layer.out_features, layer.in_features = layer.weight.shape
