"""The layer types that can be gated: where their units lie in the output and in the weight.

One file per layer type, which knows nothing of gates, specs or tasks. To add one, write a file with a subclass of
`LayerType`, decorate it with `@registry.layer_types.register("<name of the module class>")`, and import it below; where
the short name is taken, register the full one (`library.dense.Linear`). A layer type outside this package counts as
soon as it is registered. Nothing else changes if the layer has one input and uses its weight in a convolution, a matrix
product or an embedding lookup. Any other layer is protected too, but coarsely: its inputs count as always live. For
more, add a handler to `graph/tracing/weight_uses.py`.
"""

from __future__ import annotations

from torch import nn
from torch.nn.parameter import is_lazy

from fgadahat_hooks import registry
from fgadahat_hooks.layers.base import LayerType, weight_of
from fgadahat_hooks.layers.conv1d import Conv1dType
from fgadahat_hooks.layers.conv2d import Conv2dType
from fgadahat_hooks.layers.conv3d import Conv3dType
from fgadahat_hooks.layers.conv_transpose1d import ConvTranspose1dType
from fgadahat_hooks.layers.conv_transpose2d import ConvTranspose2dType
from fgadahat_hooks.layers.conv_transpose3d import ConvTranspose3dType
from fgadahat_hooks.layers.embedding import EmbeddingType
from fgadahat_hooks.layers.linear import LinearType
from fgadahat_hooks.layers.linear_like import LinearLikeType
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
    "LinearLikeType",
    "LinearType",
    "TransformersConv1DType",
    "class_type_of",
    "layer_type_of",
    "refusal_of",
    "weight_of",
]


def layer_type_of(module: nn.Module) -> LayerType | None:
    """Return the layer type registered for a module's class, or else for its nearest base class; None if there is none.

    A module that looks like a linear layer counts as one (`LinearLikeType`).

    Also None if `weight` is not a materialised parameter of the module itself, because then it cannot be protected
    (a lazy layer before its first forward, a parametrized or weight-normed one), and if the layer type refuses it.
    """
    weight = module._parameters.get("weight")
    if weight is None or is_lazy(weight):
        return None
    kind = _find_type(module)
    return None if kind is None or kind.refusal(module) else kind


def class_type_of(module: nn.Module) -> LayerType | None:
    """Return the layer type of a module's class, whatever became of its weight: a weight-normed one, say."""
    return _find_type(module)


def refusal_of(module: nn.Module) -> str:
    """Return why its layer type refuses a module, as the end of a sentence; empty if it does not."""
    kind = _find_type(module)
    return "" if kind is None or module._parameters.get("weight") is None else kind.refusal(module)


def _find_type(module: nn.Module) -> LayerType | None:
    for cls in type(module).__mro__:
        for name in (f"{cls.__module__}.{cls.__qualname__}", cls.__name__):
            if name in registry.layer_types:
                kind: type[LayerType] = registry.layer_types.get(name)
                if kind.is_class(cls):  # not another class of the same name
                    return kind()
    return LinearLikeType() if LinearLikeType.fits(module) else None
