"""Tensors that a model keeps as plain attributes and changes in training: no task has its own copy of them."""

from __future__ import annotations

import warnings
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from fgadahat_hooks.errors import UnkeptStateWarning
from fgadahat_hooks.gates.attached_model import AttachedModel
from fgadahat_hooks.graph.unit_graph import GATE

_MADE_OF = ("_g", "_v", "_orig")
"""Ends of the names of parameters that another attribute is computed of: weight and spectral normalisation, pruning."""


def plain_state(model: nn.Module) -> dict[str, Tensor]:
    """Return copies of the floating-point tensors that are attributes, but neither parameters nor buffers, by name."""
    return {name: tensor.detach().clone() for name, tensor in _attributes(model)}


def _attributes(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Yield name and tensor of each attribute that is no result of a computation with gradients, or of parameters."""
    for path, module in model.named_modules():
        if path.rpartition(".")[2] == GATE:
            continue
        for name, value in vars(module).items():
            computed = any(f"{name}{end}" in module._parameters for end in _MADE_OF)
            if _is_state(value) and not computed:
                yield f"{path}.{name}" if path else name, value


def _is_state(value: object) -> bool:
    if not isinstance(value, Tensor) or isinstance(value, nn.Parameter):
        return False
    return value.grad_fn is None and value.is_floating_point() and not value.is_meta


def warn_of_unkept_state(attached: AttachedModel) -> None:
    """Warn of the attributes that have changed since attach, once each: finished tasks read what the last task left."""
    now = dict(_attributes(attached.model))
    changed = [name for name, before in attached.plain_state.items() if name in now and _differs(before, now[name])]
    for name in changed:
        del attached.plain_state[name]
    if changed:
        more = "" if len(changed) == 1 else f" (and {len(changed) - 1} more)"
        local = changed[0].rpartition(".")[2]
        warnings.warn(
            f"'{changed[0]}'{more} is a tensor that has changed in training and is neither a parameter nor a buffer: "
            "every task writes over it, and finished tasks that read it change. Make it a buffer, "
            f"`self.register_buffer('{local}', ...)`: then each task keeps its own.",
            UnkeptStateWarning,
            stacklevel=6,
        )


def _differs(before: Tensor, now: Tensor) -> bool:
    """Return whether a tensor of the same shape has other values; one of another shape belongs to a batch."""
    return before.shape == now.shape and not torch.equal(before.to(now), now.detach())
