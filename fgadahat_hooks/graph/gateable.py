"""The layers of a model that are of a known type, and those of them that a gate can act on."""

from __future__ import annotations

from collections import Counter

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from fgadahat_hooks.graph.tracing.storage import is_plain, storage_key
from fgadahat_hooks.layers import LayerType, layer_type_of


def gateable_layers(model: nn.Module) -> dict[str, tuple[nn.Module, LayerType]]:
    """Return every layer that a gate can act on, by name: of a known type, its parameters not shared."""
    uses = _storage_uses(model)
    return {
        name: (module, kind)
        for name, (module, kind) in known_layers(model).items()
        if all(uses[storage_key(p)] == 1 for p in module._parameters.values() if p is not None)
    }


def known_layers(model: nn.Module) -> dict[str, tuple[nn.Module, LayerType]]:
    """Return every layer of a known type, those with a tied weight included.

    Of several layers with one weight, the first counts. An embedding counts only if no layer of another type has its
    weight: if it is tied to the head, the head counts.
    """
    found, seen = {}, set()
    for name, module in sorted(model.named_modules(), key=lambda named: is_embedding(named[1])):
        kind = None if isinstance(module, torch.jit.ScriptModule) else layer_type_of(module)
        if kind is None or not is_plain(module.get_parameter("weight")):
            continue
        key = storage_key(module.get_parameter("weight"))
        if key not in seen:
            found[name] = (module, kind)
        seen.add(key)
    return found


def is_embedding(module: nn.Module) -> bool:
    """Return whether a layer looks rows up by index and reads no features: never a head, and ignored unless gated."""
    kind = None if isinstance(module, torch.jit.ScriptModule) else layer_type_of(module)
    return kind is not None and kind.inputs(module) == 0


def _storage_uses(model: nn.Module) -> Counter[int]:
    """Count for each parameter storage how many parameters of modules use it."""
    return Counter(
        storage_key(parameter)
        for module in model.modules()
        for parameter in module._parameters.values()
        if parameter is not None and not is_lazy(parameter) and is_plain(parameter)
    )
