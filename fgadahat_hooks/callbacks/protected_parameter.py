"""One weight or bias of a gated layer during one task."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fgadahat_hooks.callbacks.prior_use import PriorUse, UnitPriorUse


class ProtectedParameter:
    """A gated parameter, how earlier tasks use it, and its values before the step.

    Attributes:
        layer: Name of its layer.
        name: Its qualified name.
        tensor: The parameter itself.
        prior_use: How earlier tasks use it.
        sparsity: `R_l` of its layer at this step, a scalar.
        limited: Whether its rate can be below 1 anywhere; if not, a step of it is left alone.
        constant_rate: Its rate, if that stays constant during the task and is already computed.
    """

    def __init__(self, layer: str, local_name: str, tensor: nn.Parameter, prior_use: PriorUse | UnitPriorUse) -> None:
        """Take a parameter by its layer's name and its local name; no values are saved yet."""
        self.layer = layer
        self.name = f"{layer}.{local_name}"
        self.tensor = tensor
        self.prior_use = prior_use
        self.sparsity = torch.zeros(())
        self.limited = True
        self.constant_rate: Tensor | None = None
        self._old: Tensor | None = None

    def resume(self, before: ProtectedParameter) -> None:
        """Continue with the values that an earlier object for the same parameter saved."""
        self._old, self.sparsity = before._old, before.sparsity

    def scale_gradient(self, rate: Tensor) -> None:
        """Multiply the gradient by a rate, in place; a rate of 0 gives 0, also where the gradient is not finite."""
        if self.tensor.grad is not None:
            self.tensor.grad.mul_(rate).masked_fill_(rate == 0, 0)

    def save(self) -> None:
        """Copy the values before a step."""
        if self._old is None or self._old.shape != self.tensor.shape or self._old.device != self.tensor.device:
            self._old = self.tensor.detach().clone()
        else:
            self._old.copy_(self.tensor)

    def scale_update(self, rate: Tensor) -> None:
        """Set `p = p_old + a (p - p_old)`; for `a = 0` and `a = 1` exactly `p_old` and `p`."""
        if self._old is not None:
            torch.lerp(self._old, self.tensor, rate, out=self.tensor)

    def restore(self) -> None:
        """Write the values before the step back."""
        if self._old is not None:
            self.tensor.copy_(self._old)
