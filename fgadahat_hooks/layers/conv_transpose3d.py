"""`nn.ConvTranspose3d`: weight `(in, out / groups, kd, kh, kw)`, units are output channels; also grouped."""

from __future__ import annotations

from typing import ClassVar

from torch import nn

from fgadahat_hooks import registry
from fgadahat_hooks.layers.conv_transpose import ConvTransposeType


@registry.layer_types.register("ConvTranspose3d")
class ConvTranspose3dType(ConvTransposeType):
    """A unit is an output channel with its whole volume."""

    module_class: ClassVar[type[nn.Module] | str] = nn.ConvTranspose3d
    unit_axis: ClassVar[int] = -4
