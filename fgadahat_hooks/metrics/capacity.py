"""The metric of how much of the network may still move."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fgadahat_hooks.errors import BadCallError
from fgadahat_hooks.metrics.plotted import PlottedMetric
from fgadahat_hooks.session.session import Session


class NetworkCapacity(PlottedMetric):
    """Network capacity: the mean adjustment rate over the gated weights and biases that exist (AdaHAT, Sec. 4.1).

    1 before the first task ends; `session.capacity()` at the last call of `update`. It tells how much of the network
    may still move, not how well the next task will be learnt: look at `FreeUnitFraction` and `LearningAccuracy` beside
    it. NaN before the first call.

    Args:
        **kwargs: Options of `torchmetrics.Metric`.
    """

    full_state_update = True

    capacity: Tensor

    def __init__(self, **kwargs: Any) -> None:
        """Begin without a value; see the class."""
        super().__init__(**kwargs)
        # Every process has the same rates, so that the largest is each of them.
        self.add_state("capacity", torch.tensor(torch.nan), dist_reduce_fx="max")

    def update(self, source: Session) -> None:
        """Read the rates: of a running task with its current gates, else of a next task that uses nothing yet.

        Raises:
            BadCallError: It is no session.
            NoTaskError: The model of the session has not been traced yet.
        """
        if not isinstance(source, Session):
            raise BadCallError(f"Expected a session, but got {type(source).__name__}.")
        self.capacity = torch.tensor(source.capacity(), dtype=self.dtype, device=self.capacity.device)

    def compute(self) -> Tensor:
        """Return the capacity, a scalar between 0 and 1."""
        return self.capacity
