"""Binary masks written into parameters: what the gates do in every forward, done once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from fgadahat_hooks.graph.unit_graph import UnitGraph, UnitLayer
from fgadahat_hooks.layers import layer_type_of


class _Place(NamedTuple):
    """A name under which a module holds a parameter, and what of it is to be zero; None if all stays.

    `dead` broadcasts over the parameter.
    """

    module: nn.Module
    local: str
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
    for name, layer in graph.layers.items():
        off = ~masks[name].bool()
        if bool(off.any()):
            for module in _sites(model, layer, off):
                dead.update({(id(module), local): off for local in ("weight", "bias")})
    values = graph.join({name: masks[name].float().cpu() for name in graph.layers}) if graph.layers else torch.zeros(0)
    for name, channels in graph.regates.items():
        off = channels.gather_max(values, 1.0) == 0
        if bool(off.any()):
            dead.update({(id(model.get_submodule(name)), local): off for local in ("weight", "bias")})
    with torch.no_grad():
        for places in _places(model, dead).values():
            _write(places)


def _sites(model: nn.Module, layer: UnitLayer, off: Tensor) -> Iterator[nn.Module]:
    """Yield the modules whose rows are to be zero."""
    if layer.position != "after_norm":
        yield model.get_submodule(layer.name)
        return
    for name in layer.sites:
        norm = model.get_submodule(name)
        if norm._parameters.get("weight") is not None:
            yield norm
            continue
        yield model.get_submodule(layer.name)  # a norm without parameters: it alone reads the layer, so let it read 0
        mean = norm._buffers.get("running_mean")
        if mean is not None:
            norm._buffers["running_mean"] = mean.masked_fill(off.to(mean.device), 0.0)


def _places(model: nn.Module, dead: Mapping[tuple[int, str], Tensor]) -> dict[int, list[_Place]]:
    """Group the places of every parameter by its identity."""
    found: dict[int, list[_Place]] = {}
    for module in model.modules():
        for local, parameter in module._parameters.items():
            if parameter is not None:
                off = dead.get((id(module), local))
                kind = layer_type_of(module) if local == "weight" and off is not None else None
                off = off if off is None or kind is None else kind.own_view(module, off)
                found.setdefault(id(parameter), []).append(_Place(module, local, off))
    return found


def _write(places: list[_Place]) -> None:
    """Set the rows of one parameter to zero in the modules that ask for it."""
    asked = [place for place in places if place.dead is not None]
    together = len(asked) == len(places) and all(torch.equal(_rows(asked[0]), _rows(place)) for place in asked)
    for place in asked[:1] if together else asked:
        parameter = place.module._parameters[place.local]
        if parameter is None:
            continue
        value = parameter.detach().masked_fill(_rows(place).to(parameter.device), 0.0)
        if together or len(places) == 1:
            parameter.data = value
        else:
            place.module._parameters[place.local] = nn.Parameter(value, requires_grad=parameter.requires_grad)


def _rows(place: _Place) -> Tensor:
    return torch.empty(0, dtype=torch.bool, device="cpu") if place.dead is None else place.dead
