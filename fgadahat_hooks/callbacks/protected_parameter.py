"""One weight or bias of a gated layer during one task."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fgadahat_hooks.callbacks.rates import PriorUse, UnitPriorUse


class ProtectedParameter:
    """A gated parameter, what earlier tasks use of it, and its values before the step.

    Attributes:
        layer: Name of its layer.
        name: Its qualified name.
        parameter: The parameter.
        prior_use: What earlier tasks use of it.
        sparsity: `R_l` of its layer at this step, a scalar.
        constant: Its rate, where that stays the same all through the task.
    """

    def __init__(self, layer: str, local: str, parameter: nn.Parameter, prior_use: PriorUse | UnitPriorUse) -> None:
        """Take a parameter by its layer's name and its local name; nothing is remembered yet."""
        self.layer = layer
        self.name = f"{layer}.{local}"
        self.parameter = parameter
        self.prior_use = prior_use
        self.sparsity = torch.zeros(())
        self.constant: Tensor | None = None
        self._old: Tensor | None = None

    def resume(self, before: ProtectedParameter) -> None:
        """Go on with the values that an earlier object for the same parameter remembers."""
        self._old, self.sparsity = before._old, before.sparsity

    def scale_gradient(self, rate: Tensor) -> None:
        """Multiply the gradient by a rate, in place."""
        if self.parameter.grad is not None:
            self.parameter.grad.mul_(rate)

    def remember(self) -> None:
        """Copy the values before a step."""
        if self._old is None or self._old.shape != self.parameter.shape or self._old.device != self.parameter.device:
            self._old = self.parameter.detach().clone()
        else:
            self._old.copy_(self.parameter)

    def scale_update(self, rate: Tensor) -> None:
        """Set `p = p_old + a (p - p_old)`; for `a = 0` and `a = 1` exactly `p_old` and `p`."""
        if self._old is not None:
            torch.lerp(self._old, self.parameter, rate, out=self.parameter)

    def restore(self) -> None:
        """Put the values before the step in."""
        if self._old is not None:
            self.parameter.copy_(self._old)
