"""How far the task embeddings can have moved in a task."""

from __future__ import annotations

from torch import Tensor
from torch.optim import Optimizer

from fgadahat_hooks.gates.attached_model import AttachedModel
from fgadahat_hooks.protection.learning_rates import ADAM_LIKE


class EmbeddingTravel:
    """Adds up the learning rates that the task embeddings are stepped with.

    Attributes:
        total: The sum; None once a step was not bounded by its learning rate, as with SGD.
    """

    def __init__(self, attached: AttachedModel) -> None:
        """Start at 0."""
        self.total: float | None = 0.0
        self._first = next((id(gate.embedding) for gate in attached.gates.values()), None)
        self._learnt = attached.spec.gates.choose == "learn"

    def add(self, optimizer: Optimizer) -> None:
        """Count a step that an optimizer is about to make."""
        if not self._learnt or self.total is None:
            return
        rate = self._rate(optimizer)
        bounded = isinstance(optimizer, ADAM_LIKE) and not isinstance(rate, Tensor)  # reading a tensor would cost time
        self.total = self.total + float(rate) if bounded or not rate else None

    def _rate(self, optimizer: Optimizer) -> float | Tensor:
        """Return the learning rate of the embeddings, 0 if the optimizer does not hold them."""
        for group in optimizer.param_groups:
            if any(id(parameter) == self._first for parameter in group["params"]):
                rate: float | Tensor = group["lr"]
                return rate
        return 0.0
