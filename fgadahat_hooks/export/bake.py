"""Binary masks written into parameters: what the gates compute in every forward, done once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from fgadahat_hooks.graph.unit_graph import UnitGraph, UnitLayer
from fgadahat_hooks.layers import layer_type_of


class _Owner(NamedTuple):
    """A module that holds a parameter, and which elements of it are to be zero there; None if none are.

    `dead` broadcasts over the parameter.
    """

    module: nn.Module
    name: str
    dead: Tensor | None


def bake(model: nn.Module, graph: UnitGraph, masks: Mapping[str, Tensor]) -> None:
    """Set the rows of dead units to zero where their gates would act: in the layer, or in norms behind it.

    A parameter that several modules share stays shared if all of them get the same rows; if not, each gets its own.

    Args:
        model: A copy without gates, changed in place.
        graph: The unit graph of the attached model.
        masks: Binary mask of each gated layer, `(units,)` bool.
    """
    dead: dict[tuple[int, str], Tensor] = {}
    for module, off in (*_gated(model, graph, masks), *_regated(model, graph, masks)):
        dead.update({(id(module), name): off for name in ("weight", "bias")})
    with torch.no_grad():
        for owners in _owners_by_parameter(model, dead).values():
            _zero_dead_rows(owners)


def _gated(model: nn.Module, graph: UnitGraph, masks: Mapping[str, Tensor]) -> Iterator[tuple[nn.Module, Tensor]]:
    """Yield the modules on which a layer's gate acts, with the units that are off, `(units,)` bool."""
    for name, layer in graph.layers.items():
        off = ~masks[name].bool()
        if bool(off.any()):
            yield from ((module, off) for module in _gate_sites(model, layer, off))


def _regated(model: nn.Module, graph: UnitGraph, masks: Mapping[str, Tensor]) -> Iterator[tuple[nn.Module, Tensor]]:
    """Yield the norms that are gated by the units of other layers, with the channels that are off."""
    values = graph.join({name: masks[name].float().cpu() for name in graph.layers}) if graph.layers else torch.zeros(0)
    for name, channels in graph.regates.items():
        off = channels.gather_max(values, 1.0) == 0
        if bool(off.any()):
            yield model.get_submodule(name), off


def _gate_sites(model: nn.Module, layer: UnitLayer, off: Tensor) -> Iterator[nn.Module]:
    """Yield the modules whose rows are to be zero."""
    if layer.position != "after_norm":
        yield model.get_submodule(layer.name)
        return
    for name in layer.sites:
        norm = model.get_submodule(name)
        if norm._parameters.get("weight") is not None:
            yield norm
            continue
        yield model.get_submodule(layer.name)  # only this norm reads the layer, and has no rows to zero
        mean = norm._buffers.get("running_mean")
        if mean is not None:
            norm._buffers["running_mean"] = mean.masked_fill(off.to(mean.device), 0.0)


def _owners_by_parameter(model: nn.Module, dead: Mapping[tuple[int, str], Tensor]) -> dict[int, list[_Owner]]:
    """Return the owners of every parameter, by the parameter's id."""
    found: dict[int, list[_Owner]] = {}
    for module in model.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None:
                off = dead.get((id(module), name))
                layer_type = layer_type_of(module) if name == "weight" and off is not None else None
                off = off if off is None or layer_type is None else layer_type.unit_view(module, off)
                found.setdefault(id(parameter), []).append(_Owner(module, name, off))
    return found


def _zero_dead_rows(owners: list[_Owner]) -> None:
    """Set the rows of one parameter to zero in the modules where some are dead."""
    masked = [owner for owner in owners if owner.dead is not None]
    together = len(masked) == len(owners) and all(torch.equal(_rows(masked[0]), _rows(owner)) for owner in masked)
    for owner in masked[:1] if together else masked:
        parameter = owner.module._parameters[owner.name]
        if parameter is None:
            continue
        value = parameter.detach().masked_fill(_rows(owner).to(parameter.device), 0.0)
        if together or len(owners) == 1:
            parameter.data = value
        else:
            owner.module._parameters[owner.name] = nn.Parameter(value, requires_grad=parameter.requires_grad)


def _rows(owner: _Owner) -> Tensor:
    return torch.empty(0, dtype=torch.bool, device="cpu") if owner.dead is None else owner.dead
