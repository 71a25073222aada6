"""Cut parameters and buffers, and keep what layers say of their sizes true."""

from __future__ import annotations

import copy
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from fgadahat_hooks.export.choose import Cut, kept
from fgadahat_hooks.export.slots import Sliced, SlotTable
from fgadahat_hooks.layers import layer_type_of


def shrunk(model: nn.Module, table: SlotTable, going: Iterable[Cut]) -> nn.Module:
    """Return a copy of a model without the slots that go; parameters that are shared stay shared."""
    gone = {root for cut in going for root in cut}
    made = copy.deepcopy(model)
    for entry in table.entries.values():
        places = {axis: kept(table, entry, axis, gone) for axis in entry.axes}
        if any(len(stay) < entry.shape[axis] for axis, stay in places.items()):
            _cut(made, entry, places)
    return made


def _cut(model: nn.Module, entry: Sliced, places: dict[int, Tensor]) -> None:
    done: dict[int, Tensor] = {}
    for path, local in entry.owners:
        module = model.get_submodule(path)
        old = module._parameters.get(local)
        tensor = module._buffers[local] if old is None else old
        if tensor is None:
            continue
        if id(tensor) not in done:
            done[id(tensor)] = _sliced(tensor, places)
        setattr(module, local, done[id(tensor)])
        _tell_sizes(module)


def _sliced(tensor: Tensor, places: dict[int, Tensor]) -> Tensor:
    value = tensor.detach()
    for axis, stay in places.items():
        value = value.index_select(axis, stay.to(value.device))
    return nn.Parameter(value, requires_grad=tensor.requires_grad) if isinstance(tensor, nn.Parameter) else value


def _tell_sizes(module: nn.Module) -> None:
    """Set the attributes by which layers tell their sizes."""
    weight, kind = module._parameters.get("weight"), layer_type_of(module)
    if kind is not None:
        kind.tell_sizes(module)
    elif isinstance(module, nn.modules.batchnorm._NormBase):
        known = (weight, module._buffers.get("running_mean"))
        module.num_features = next((len(t) for t in known if t is not None), module.num_features)
    elif isinstance(module, nn.PReLU) and weight is not None:
        module.num_parameters = len(weight)


def widths(model: nn.Module) -> dict[str, int]:
    """Return the number of units of every layer of a known type."""
    found = {}
    for name, module in model.named_modules():
        kind = layer_type_of(module)
        if kind is not None:
            found[name] = kind.units(module)
    return found


def count(model: nn.Module) -> tuple[int, int]:
    """Return the number of parameter elements, and the bytes of all parameters and buffers."""
    tensors: list[Tensor] = [*model.parameters(), *model.buffers()]
    return sum(p.numel() for p in model.parameters()), sum(t.numel() * t.element_size() for t in tensors)


def double(model: nn.Module) -> nn.Module:
    """Return a copy of a model in double precision."""
    return copy.deepcopy(model).to(torch.float64)
