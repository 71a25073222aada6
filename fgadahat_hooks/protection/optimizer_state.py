"""Repair the state of an optimizer that is kept from one task to the next."""

from __future__ import annotations

import inspect

import torch
from torch import Tensor
from torch.optim import Optimizer


def reset_state(optimizer: Optimizer, parameter: Tensor) -> None:
    """Give a parameter the state that a new optimizer would have for it.

    Most optimizers make a parameter's state at its first step, some (Adagrad) when they are built. An optimizer that
    cannot be built from its own defaults keeps the state it has.
    """
    known = inspect.signature(type(optimizer)).parameters
    options = {name: value for name, value in optimizer.defaults.items() if name in known}
    try:
        fresh = type(optimizer)([parameter], **options)
    except (TypeError, ValueError):
        return
    if parameter in fresh.state:
        optimizer.state[parameter] = fresh.state[parameter]
    else:
        optimizer.state.pop(parameter)


def fill_momentum(optimizer: Optimizer) -> None:
    """Give fused SGD zero momenta where it has none: it takes those of all parameters or of none."""
    for group in optimizer.param_groups:
        held = [optimizer.state.get(p, {}) for p in group["params"]] if group.get("fused") else []
        if any(state.get("momentum_buffer") is not None for state in held):
            for p in group["params"]:
                if optimizer.state[p].get("momentum_buffer") is None:
                    optimizer.state[p]["momentum_buffer"] = torch.zeros_like(p)
