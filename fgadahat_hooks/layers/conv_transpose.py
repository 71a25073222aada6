"""The common base of one-, two- and three-dimensional transposed convolutions.

With `O` units, `I` input channels and `g` groups, the weight is `(I, O / g, ...)`, and its entry at `(k, i)` feeds unit
`(k // (I / g)) * (O / g) + i`.
"""

from __future__ import annotations

from typing import ClassVar, cast

from torch import Tensor, nn

from fgadahat_hooks.layers.base import weight_of
from fgadahat_hooks.layers.conv import ConvType


class ConvTransposeType(ConvType):
    """A unit is an output channel; its axis in the weight is that of the inputs in other convolutions."""

    weight_axis: ClassVar[int] = 1

    def units(self, module: nn.Module) -> int:
        """Return the number of output channels over all groups."""
        return super().inputs(module)

    def inputs(self, module: nn.Module) -> int:
        """Return the number of input channels."""
        return weight_of(module).shape[0]

    def unit_view(self, module: nn.Module, values: Tensor) -> Tensor:
        """Expand `(O,)` to `(I, O / g, 1, ...)`, or reshape to `(1, O, 1, ...)` when there is one group."""
        return super().input_view(module, values)

    def input_view(self, module: nn.Module, values: Tensor) -> Tensor:
        """Reshape `(I,)` to `(I, 1, ...)`."""
        return super().unit_view(module, values)

    def sum_by_unit(self, module: nn.Module, x: Tensor) -> Tensor:
        """Sum `(I, O / g, ...)` over the inputs of each group and kernel positions: `(O,)`."""
        return super().sum_by_input(module, x)

    def sum_by_input(self, module: nn.Module, x: Tensor) -> Tensor:
        """Sum `(I, O / g, ...)` over units and kernel positions: `(I,)`."""
        return super().sum_by_unit(module, x)

    def update_sizes(self, module: nn.Module) -> None:
        """Set `in_channels`, `out_channels` and `groups`; only whole groups are ever removed."""
        layer = cast("nn.ConvTranspose2d", module)
        if layer.groups > 1:
            layer.groups = layer.groups * layer.weight.shape[0] // layer.in_channels
        layer.in_channels, layer.out_channels = layer.weight.shape[0], layer.weight.shape[1] * layer.groups
