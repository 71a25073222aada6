"""The common base of one-, two- and three-dimensional convolutions; they differ in the channel axis of their output.

With `O` units, `I` input channels and `g` groups, the weight is `(O, I / g, ...)`, and its entry at `(i, k)` reads
input channel `(i // (O / g)) * (I / g) + k`.
"""

from __future__ import annotations

from typing import ClassVar, cast

import torch
from torch import Tensor, nn

from fgadahat_hooks.layers.base import LayerType, weight_of


class ConvType(LayerType):
    """A unit is an output channel with its whole map, also in grouped and depthwise convolutions.

    The unit axis is counted from the end, so that a single sample without a batch axis works too.
    """

    shorthand: ClassVar[str] = "all-conv"

    def units(self, module: nn.Module) -> int:
        """Return the number of output channels."""
        return weight_of(module).shape[0]

    def inputs(self, module: nn.Module) -> int:
        """Return the number of input channels over all groups."""
        return weight_of(module).shape[1] * groups_of(module)

    def unit_view(self, module: nn.Module, values: Tensor) -> Tensor:
        """Reshape `(O,)` to `(O, 1, ...)`."""
        return values.reshape(-1, 1, *self._kernel_ones())

    def input_view(self, module: nn.Module, values: Tensor) -> Tensor:
        """Expand `(I,)` to `(O, I / g, 1, ...)`, or reshape to `(1, I, 1, ...)` when there is one group."""
        groups = groups_of(module)
        rows = values.reshape(groups, -1)
        if groups > 1:
            rows = rows.repeat_interleave(weight_of(module).shape[0] // groups, dim=0)
        return rows.reshape(*rows.shape, *self._kernel_ones())

    def sum_by_unit(self, module: nn.Module, x: Tensor) -> Tensor:
        """Sum `(O, I / g, ...)` over inputs and kernel positions: `(O,)`."""
        return x.sum((1, *self._kernel_axes()))

    def sum_by_input(self, module: nn.Module, x: Tensor) -> Tensor:
        """Sum `(O, I / g, ...)` over the units of each group and kernel positions: `(I,)`."""
        # One axis after the other: a sum over all at once reads memory in strides and takes five times as long.
        return x.reshape(groups_of(module), -1, *x.shape[1:]).sum(1).sum(self._kernel_axes()).flatten()

    def update_sizes(self, module: nn.Module) -> None:
        """Set `out_channels`, `in_channels` and `groups`; only whole groups are ever removed."""
        layer = cast("nn.Conv2d", module)
        if layer.groups > 1:
            layer.groups = layer.groups * layer.weight.shape[0] // layer.out_channels
        layer.out_channels, layer.in_channels = layer.weight.shape[0], layer.weight.shape[1] * layer.groups

    def _kernel_axes(self) -> tuple[int, ...]:
        """Return the axes of kernel positions, negative, so that they hold after another axis was summed over too."""
        return tuple(range(self.unit_axis + 1, 0))

    def _kernel_ones(self) -> torch.Size:
        """Return a size of one for each axis of kernel positions."""
        return torch.Size([1] * (-1 - self.unit_axis))


def groups_of(module: nn.Module) -> int:
    """Return a convolution's number of groups."""
    return cast("nn.Conv2d", module).groups
