"""What must be known of each layer type that can be gated; one file a type."""

from __future__ import annotations

from torch import nn
from torch.nn.parameter import is_lazy

from fgadahat_hooks import registry
from fgadahat_hooks.layers.base import LayerType
from fgadahat_hooks.layers.conv1d import Conv1dType
from fgadahat_hooks.layers.conv2d import Conv2dType
from fgadahat_hooks.layers.conv3d import Conv3dType
from fgadahat_hooks.layers.conv_transpose1d import ConvTranspose1dType
from fgadahat_hooks.layers.conv_transpose2d import ConvTranspose2dType
from fgadahat_hooks.layers.conv_transpose3d import ConvTranspose3dType
from fgadahat_hooks.layers.embedding import EmbeddingType
from fgadahat_hooks.layers.linear import LinearType
from fgadahat_hooks.layers.transformers_conv1d import TransformersConv1DType

__all__ = [
    "Conv1dType",
    "Conv2dType",
    "Conv3dType",
    "ConvTranspose1dType",
    "ConvTranspose2dType",
    "ConvTranspose3dType",
    "EmbeddingType",
    "LayerType",
    "LinearType",
    "TransformersConv1DType",
    "layer_type_of",
    "refusal_of",
]


def layer_type_of(module: nn.Module) -> LayerType | None:
    """Return the layer type of a module, its own class's or the nearest base class's; `None` if it has none.

    A module whose `weight` is no parameter of its own has none either, because its rows cannot be protected: a lazy
    layer before its first forward, a parametrized or weight-normed one. Nor has one that its type refuses.
    """
    weight = module._parameters.get("weight")
    if weight is None or is_lazy(weight):
        return None
    kind = _nearest(module)
    return None if kind is None or kind.refusal(module) else kind


def refusal_of(module: nn.Module) -> str:
    """Return why a module of a known type cannot be gated, as the end of a sentence; empty if nothing is to be said."""
    kind = _nearest(module)
    return "" if kind is None or module._parameters.get("weight") is None else kind.refusal(module)


def _nearest(module: nn.Module) -> LayerType | None:
    for cls in type(module).__mro__:
        if cls.__name__ in registry.layer_types:
            kind: type[LayerType] = registry.layer_types.get(cls.__name__)
            if kind.is_class(cls):  # not a namesake
                return kind()
    return None
