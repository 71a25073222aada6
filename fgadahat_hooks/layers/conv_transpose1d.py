"""`nn.ConvTranspose1d`: weight `(in, out / groups, k)`, units are output channels; also grouped."""

from __future__ import annotations

from typing import ClassVar

from torch import nn

from fgadahat_hooks import registry
from fgadahat_hooks.layers.conv_transpose import ConvTransposeType


@registry.layer_types.register("ConvTranspose1d")
class ConvTranspose1dType(ConvTransposeType):
    """A unit is an output channel with its whole line."""

    module_class: ClassVar[type[nn.Module] | str] = nn.ConvTranspose1d
    unit_axis: ClassVar[int] = -2
