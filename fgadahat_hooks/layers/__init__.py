"""What must be known of each layer type that can be gated; one file a type."""

from __future__ import annotations

from torch import nn
from torch.nn.parameter import is_lazy

from fgadahat_hooks import registry
from fgadahat_hooks.layers.base import LayerType
from fgadahat_hooks.layers.conv2d import Conv2dType
from fgadahat_hooks.layers.linear import LinearType

__all__ = ["Conv2dType", "LayerType", "LinearType", "layer_type_of"]


def layer_type_of(module: nn.Module) -> LayerType | None:
    """Return the layer type of a module, its own class's or the nearest base class's; `None` if it has none.

    A module whose `weight` is no parameter of its own has none either, because its rows cannot be protected: a lazy
    layer before its first forward, a parametrized or weight-normed one.
    """
    weight = module._parameters.get("weight")
    if weight is None or is_lazy(weight):
        return None
    for cls in type(module).__mro__:
        kind = _registered(cls)
        if kind is not None:
            return kind()
    return None


def _registered(cls: type) -> type[LayerType] | None:
    """Return the type registered for exactly this class, not for a namesake."""
    if cls.__name__ not in registry.layer_types:
        return None
    kind: type[LayerType] = registry.layer_types.get(cls.__name__)
    return kind if kind.module_class is cls else None
