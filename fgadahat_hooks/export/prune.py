"""Cut removed channels out of parameters and buffers, and update the size attributes of their modules."""

from __future__ import annotations

import copy
from collections.abc import Iterable

from torch import Tensor, nn

from fgadahat_hooks.export.channel_table import ChannelTable, PrunableTensor
from fgadahat_hooks.export.selection import Candidate, kept_positions
from fgadahat_hooks.layers import layer_type_of


def pruned_copy(model: nn.Module, table: ChannelTable, chosen: Iterable[Candidate]) -> nn.Module:
    """Return a copy of a model without the chosen channel groups; parameters that are shared stay shared."""
    removed = {group for candidate in chosen for group in candidate}
    pruned = copy.deepcopy(model)
    for entry in table.entries.values():
        kept = {axis: kept_positions(table, entry, axis, removed) for axis in entry.channels}
        if any(len(positions) < entry.shape[axis] for axis, positions in kept.items()):
            _prune_entry(pruned, entry, kept)
    return pruned


def _prune_entry(model: nn.Module, entry: PrunableTensor, kept: dict[int, Tensor]) -> None:
    """Replace a tensor in all modules that hold it, each distinct object once."""
    replaced: dict[int, Tensor] = {}
    for path, name in entry.owners:
        module = model.get_submodule(path)
        parameter = module._parameters.get(name)
        tensor = module._buffers[name] if parameter is None else parameter
        if tensor is None:
            continue
        if id(tensor) not in replaced:
            replaced[id(tensor)] = _at_positions(tensor, kept)
        setattr(module, name, replaced[id(tensor)])
        _update_sizes(module)


def _at_positions(tensor: Tensor, kept: dict[int, Tensor]) -> Tensor:
    """Return a tensor of the same kind with the kept positions along each axis alone."""
    value = tensor.detach()
    for axis, positions in kept.items():
        value = value.index_select(axis, positions.to(value.device))
    return nn.Parameter(value, requires_grad=tensor.requires_grad) if isinstance(tensor, nn.Parameter) else value


def _update_sizes(module: nn.Module) -> None:
    """Set the attributes in which a module stores its sizes (`out_features`, `num_features`, ...)."""
    weight, layer_type = module._parameters.get("weight"), layer_type_of(module)
    if layer_type is not None:
        layer_type.update_sizes(module)
    elif isinstance(module, nn.modules.batchnorm._NormBase):
        known = (weight, module._buffers.get("running_mean"))
        module.num_features = next((len(t) for t in known if t is not None), module.num_features)
    elif isinstance(module, nn.PReLU) and weight is not None:
        module.num_parameters = len(weight)
