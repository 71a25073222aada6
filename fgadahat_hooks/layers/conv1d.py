"""`nn.Conv1d`: weight `(out, in / groups, k)`, units are output channels; also grouped and depthwise."""

from __future__ import annotations

from typing import ClassVar

from torch import nn

from fgadahat_hooks import registry
from fgadahat_hooks.layers.conv import ConvType


@registry.layer_types.register("Conv1d")
class Conv1dType(ConvType):
    """A unit is an output channel with its whole line."""

    module_class: ClassVar[type[nn.Module] | str] = nn.Conv1d
    unit_axis: ClassVar[int] = -2
