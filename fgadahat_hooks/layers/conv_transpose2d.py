"""`nn.ConvTranspose2d`: weight `(in, out / groups, kh, kw)`, units are output channels; also grouped."""

from __future__ import annotations

from typing import ClassVar

from torch import nn

from fgadahat_hooks import registry
from fgadahat_hooks.layers.conv_transpose import ConvTransposeType


@registry.layer_types.register("ConvTranspose2d")
class ConvTranspose2dType(ConvTransposeType):
    """A unit is an output channel with its whole map."""

    module_class: ClassVar[type[nn.Module] | str] = nn.ConvTranspose2d
    unit_axis: ClassVar[int] = -3
