"""`nn.Conv2d`: weight `(out, in / groups, kh, kw)`, units are output channels; grouped and depthwise too.

With `O` units, `I` input channels and `g` groups, the weight at `(i, k)` reads input channel
`(i // (O / g)) * (I / g) + k`.
"""

from __future__ import annotations

from typing import ClassVar, cast

from torch import Tensor, nn

from fgadahat_hooks import registry
from fgadahat_hooks.layers.base import LayerType


@registry.layer_types.register("Conv2d")
class Conv2dType(LayerType):
    """A unit is an output channel, its whole map."""

    module_class: ClassVar[type[nn.Module]] = nn.Conv2d
    unit_axis: ClassVar[int] = -3
    """Counted from the end, so that a single image without batch axis works too."""

    def units(self, module: nn.Module) -> int:
        """Return the number of output channels."""
        return module.get_parameter("weight").shape[0]

    def inputs(self, module: nn.Module) -> int:
        """Return the number of input channels over all groups."""
        return module.get_parameter("weight").shape[1] * _groups(module)

    def own_view(self, module: nn.Module, values: Tensor) -> Tensor:
        """Reshape `(O,)` to `(O, 1, 1, 1)`."""
        return values.reshape(-1, 1, 1, 1)

    def input_view(self, module: nn.Module, values: Tensor) -> Tensor:
        """Spread `(I,)` to `(O, I / g, 1, 1)`, or reshape to `(1, I, 1, 1)` when there is one group."""
        groups = _groups(module)
        rows = values.reshape(groups, -1)
        if groups > 1:
            rows = rows.repeat_interleave(self.units(module) // groups, dim=0)
        return rows[:, :, None, None]

    def sum_by_unit(self, module: nn.Module, x: Tensor) -> Tensor:
        """Sum `(O, I / g, kh, kw)` over inputs and kernel positions: `(O,)`."""
        return x.sum((1, 2, 3))

    def sum_by_input(self, module: nn.Module, x: Tensor) -> Tensor:
        """Sum `(O, I / g, kh, kw)` over the units of each group and kernel positions: `(I,)`."""
        # One axis after the other: over all three at once, torch walks through memory in strides, five times slower.
        return x.reshape(_groups(module), -1, *x.shape[1:]).sum(1).sum((2, 3)).flatten()


def _groups(module: nn.Module) -> int:
    return cast("nn.Conv2d", module).groups
