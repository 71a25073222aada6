"""Run a model in evaluation mode without side effects."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch
from torch import nn


@contextmanager
def no_side_effects(model: nn.Module) -> Iterator[None]:
    """Run the block with the model in evaluation mode; afterwards modes and random states are as before.

    Autocast is off inside, so that an attribution has the precision of the parameters. Modes are set by attribute,
    since a `train` method overridden by the user may do more than switch the mode.
    """
    training = [module for module in model.modules() if module.training]
    devices = {p.device for p in model.parameters()}
    with ExitStack() as stack:
        stack.enter_context(torch.random.fork_rng(cuda_devices(model)))
        stack.enter_context(torch.enable_grad())
        for kind in {"cpu", *(d.type for d in devices)}:
            stack.enter_context(torch.autocast(kind, enabled=False))
        stack.callback(_set_training, training, True)
        _set_training(training, False)
        yield


def cuda_devices(model: nn.Module) -> list[torch.device]:
    """Return the CUDA devices that a model's parameters are on."""
    return [d for d in {p.device for p in model.parameters()} if d.type == "cuda"]


def _set_training(modules: list[nn.Module], value: bool) -> None:
    for module in modules:
        module.training = value
