"""What convolutions of one, two and three dimensions share; their types differ in where the channels of outputs lie.

With `O` units, `I` input channels and `g` groups, the weight is `(O, I / g, ...)`, and its entry at `(i, k)` reads
input channel `(i // (O / g)) * (I / g) + k`.
"""

from __future__ import annotations

from typing import ClassVar, cast

import torch
from torch import Tensor, nn

from fgadahat_hooks.layers.base import LayerType


class ConvType(LayerType):
    """A unit is an output channel, its whole map; grouped and depthwise convolutions too.

    The unit axis is counted from the end, so that a single sample without batch axis works too.
    """

    shorthand: ClassVar[str] = "all-conv"

    def units(self, module: nn.Module) -> int:
        """Return the number of output channels."""
        return module.get_parameter("weight").shape[0]

    def inputs(self, module: nn.Module) -> int:
        """Return the number of input channels over all groups."""
        return module.get_parameter("weight").shape[1] * groups_of(module)

    def own_view(self, module: nn.Module, values: Tensor) -> Tensor:
        """Reshape `(O,)` to `(O, 1, ...)`."""
        return values.reshape(-1, 1, *self._ones())

    def input_view(self, module: nn.Module, values: Tensor) -> Tensor:
        """Spread `(I,)` to `(O, I / g, 1, ...)`, or reshape to `(1, I, 1, ...)` when there is one group."""
        groups = groups_of(module)
        rows = values.reshape(groups, -1)
        if groups > 1:
            rows = rows.repeat_interleave(module.get_parameter("weight").shape[0] // groups, dim=0)
        return rows.reshape(*rows.shape, *self._ones())

    def sum_by_unit(self, module: nn.Module, x: Tensor) -> Tensor:
        """Sum `(O, I / g, ...)` over inputs and kernel positions: `(O,)`."""
        return x.sum((1, *self._places()))

    def sum_by_input(self, module: nn.Module, x: Tensor) -> Tensor:
        """Sum `(O, I / g, ...)` over the units of each group and kernel positions: `(I,)`."""
        # One axis after the other: over all of them at once, torch walks through memory in strides, five times slower.
        return x.reshape(groups_of(module), -1, *x.shape[1:]).sum(1).sum(self._places()).flatten()

    def tell_sizes(self, module: nn.Module) -> None:
        """Set `out_channels`, `in_channels` and `groups`; of several groups, whole ones have gone."""
        layer = cast("nn.Conv2d", module)
        if layer.groups > 1:
            layer.groups = layer.groups * layer.weight.shape[0] // layer.out_channels
        layer.out_channels, layer.in_channels = layer.weight.shape[0], layer.weight.shape[1] * layer.groups

    def _places(self) -> tuple[int, ...]:
        """Return the axes of kernel positions, of a weight and, but for one that was summed over, of anything."""
        return tuple(range(self.unit_axis + 1, 0))

    def _ones(self) -> torch.Size:
        """Return the size of the axes of kernel positions in what broadcasts over them."""
        return torch.Size([1] * (-1 - self.unit_axis))


def groups_of(module: nn.Module) -> int:
    """Return a convolution's number of groups."""
    return cast("nn.Conv2d", module).groups
