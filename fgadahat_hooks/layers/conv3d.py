"""`nn.Conv3d`: weight `(out, in / groups, kd, kh, kw)`, units are output channels; also grouped and depthwise."""

from __future__ import annotations

from typing import ClassVar

from torch import nn

from fgadahat_hooks import registry
from fgadahat_hooks.layers.conv import ConvType


@registry.layer_types.register("Conv3d")
class Conv3dType(ConvType):
    """A unit is an output channel with its whole volume."""

    module_class: ClassVar[type[nn.Module] | str] = nn.Conv3d
    unit_axis: ClassVar[int] = -4
