"""Why a layer gets no gate, for messages that say that there is none to gate."""

from __future__ import annotations

from collections.abc import Container, Mapping

from torch import nn
from torch.nn.parameter import is_lazy

from fgadahat_hooks.layers import class_type_of, layer_type_of, refusal_of

_SHOWN = 4


def without_gate(modules: Mapping[str, nn.Module], others: Container[str] = ()) -> str:
    """Return the layers that get no gate, with the reasons, as a sentence; empty if none is seen.

    Args:
        modules: Modules by name.
        others: Names of layers to leave out.
    """
    found = {name: _reason(module) for name, module in modules.items() if name not in others}
    shown = [f"'{name}' ({reason})" for name, reason in found.items() if reason]
    more = f" and {len(shown) - _SHOWN} more" if len(shown) > _SHOWN else ""
    return f" Without a gate: {', '.join(shown[:_SHOWN])}{more}." if shown else ""


def _reason(module: nn.Module) -> str:
    if layer_type_of(module) is not None:
        return "its weight is tied to another layer's, quantized, or no plain memory"
    if class_type_of(module) is not None:
        return _reason_of_known_class(module)
    if isinstance(module, nn.RNNBase):
        return "recurrent: it has no gate, and is protected as the rest is"
    matrix = any(p is not None and not is_lazy(p) and p.dim() > 1 for p in module._parameters.values())
    return f"the class {type(module).__name__} is not known" if matrix else ""


def _reason_of_known_class(module: nn.Module) -> str:
    weight = module._parameters.get("weight")
    if weight is None:
        return "its weight is computed of other parameters: normalised, pruned or parametrized"
    if is_lazy(weight):
        return "it is lazy, and has no shape before the first batch"
    return refusal_of(module)
