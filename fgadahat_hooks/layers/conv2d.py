"""`nn.Conv2d`: weight `(out, in / groups, kh, kw)`, units are output channels; also grouped and depthwise."""

from __future__ import annotations

from typing import ClassVar

from torch import nn

from fgadahat_hooks import registry
from fgadahat_hooks.layers.conv import ConvType


@registry.layer_types.register("Conv2d")
class Conv2dType(ConvType):
    """A unit is an output channel with its whole map."""

    module_class: ClassVar[type[nn.Module] | str] = nn.Conv2d
    unit_axis: ClassVar[int] = -3
