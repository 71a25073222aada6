"""The tensors that each task has for itself: reads them from a model and replaces them by another task's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from fgadahat_hooks.gates.class_counts import ClassCount
from fgadahat_hooks.layers import layer_type_of


class TaskTensors:
    """The per-task tensors of one model, looked up by name each time, since modules may be moved or cast.

    A value of the same shape is set through `.data`: the parameter keeps its identity, so an optimizer built once
    stays valid. A value of another shape (a head with another number of outputs) needs a new parameter, because
    autograd remembers the shape of the old one; `update_optimizer` replaces it in an optimizer that is kept.
    """

    def __init__(self, model: nn.Module, names: list[str]) -> None:
        """Take the qualified names of parameters and buffers; `class_counts` says what follows the size of a head."""
        self.model = model
        self.names = names
        self.class_counts: dict[str, ClassCount] = {}
        self._retired: dict[int, tuple[Tensor, str]] = {}

    def tensor(self, name: str) -> Tensor:
        """Return the parameter or buffer that is in the model under a name."""
        module, local = self._owner(name)
        parameter = module._parameters.get(local)
        found = parameter if parameter is not None else module._buffers.get(local)
        if found is None:
            raise KeyError(name)
        return found

    def slot(self, name: str) -> tuple[dict[str, Tensor | None], str]:
        """Return the table of a module in which a parameter or buffer is, and its name there."""
        module, local = self._owner(name)
        table: Any = module._parameters if local in module._parameters else module._buffers
        return table, local

    def _owner(self, name: str) -> tuple[nn.Module, str]:
        path, _, local = name.rpartition(".")
        return self.model.get_submodule(path), local

    def copy(self, earlier: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
        """Return copies of all tensors; those equal to their counterparts in `earlier` are shared with it."""
        out = {}
        for name in self.names:
            live = self.tensor(name).detach()
            before = None if earlier is None else earlier.get(name)
            out[name] = before if before is not None and _identical(before, live) else live.clone()
        return out

    def references(self) -> dict[str, tuple[Tensor, Tensor]]:
        """Return each tensor of the model and its data, without copying."""
        return {name: (live := self.tensor(name), live.data) for name in self.names}

    def leave(self, references: Mapping[str, tuple[Tensor, Tensor]]) -> None:
        """Restore what `references` returned: the same tensor objects and the same memory."""
        for name, (live, data) in references.items():
            module, local = self._owner(name)
            if self.tensor(name) is not live:
                self._register(module, local, live)
                self._follow_outputs(name.rpartition(".")[0], module, local)
            live.data = data

    def enter(self, values: Mapping[str, Tensor], *, copy: bool) -> None:
        """Set the values in the model: as copies if `copy` is set, else as the given tensors themselves.

        Buffers are always copied, because a forward in training mode writes into them.
        """
        for name, value in values.items():
            module, local = self._owner(name)
            live = self.tensor(name)
            fresh = value.to(device=live.device, dtype=live.dtype)
            if fresh is value and (copy or local in module._buffers):
                fresh = fresh.clone()
            self.set(name, fresh)

    def set(self, name: str, value: Tensor) -> None:
        """Set a tensor of the model to this very value, without a copy; in a new parameter if the shape differs."""
        module, local = self._owner(name)
        live = self.tensor(name)
        if live.shape == value.shape:
            live.data = value
        elif isinstance(live, nn.Parameter):
            self._retired[id(live)] = (live, name)
            self._register(module, local, nn.Parameter(value, requires_grad=live.requires_grad))
            self._follow_outputs(name.rpartition(".")[0], module, local)
        else:
            self._register(module, local, value)

    @staticmethod
    def _register(module: nn.Module, local: str, tensor: Tensor) -> None:
        if isinstance(tensor, nn.Parameter):
            module._parameters[local] = tensor
        else:
            module._buffers[local] = tensor
        _update_sizes(module, local)

    def _follow_outputs(self, path: str, module: nn.Module, local: str) -> None:
        """Set what counts a head's classes after its weight got another shape."""
        kind = layer_type_of(module) if local == "weight" else None
        if kind is not None and path in self.class_counts:
            self.class_counts[path].follow(self.model, kind.units(module))

    def update_optimizer(self, optimizer: Optimizer) -> None:
        """Replace retired parameters by the current ones in an optimizer kept from an earlier task."""
        for group in optimizer.param_groups:
            for index, parameter in enumerate(group["params"]):
                if id(parameter) in self._retired:
                    live = self.tensor(self._retired[id(parameter)][1])
                    group["params"][index] = live
                    _move_optimizer_state(optimizer, parameter, live)


def _move_optimizer_state(optimizer: Optimizer, retired: Tensor, live: Tensor) -> None:
    """Drop the state of a retired parameter, or move it if it has the live one's shape, i.e. was loaded for that."""
    state = optimizer.state.pop(retired, {})
    shapes = {v.shape for v in state.values() if isinstance(v, Tensor) and v.dim() > 0}
    if shapes == {live.shape}:
        optimizer.state[live] = state


def _update_sizes(module: nn.Module, local: str) -> None:
    """Update a layer's attributes such as `out_features` after its weight was replaced."""
    kind = layer_type_of(module) if local == "weight" else None
    if kind is not None:
        kind.update_sizes(module)


def _identical(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and a.dtype == b.dtype and a.device == b.device and torch.equal(a, b)
