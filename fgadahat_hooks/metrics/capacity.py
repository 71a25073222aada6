"""The metric of network capacity."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fgadahat_hooks.errors import BadCallError
from fgadahat_hooks.metrics.plotted import PlottedMetric
from fgadahat_hooks.session.session import Session


class NetworkCapacity(PlottedMetric):
    """Network capacity: the mean adjustment rate over the gated weights and biases that exist (AdaHAT, Sec. 4.1).

    `session.capacity()` at the last call of `update`: 1 before the first task ends, NaN before the first call. It
    measures how much of the network may still move, not how well the next task will be learnt; compare
    `FreeUnitFraction` and `LearningAccuracy`.

    Args:
        **kwargs: Options of `torchmetrics.Metric`.
    """

    full_state_update = True

    capacity: Tensor

    def __init__(self, **kwargs: Any) -> None:
        """Start with NaN; see the class."""
        super().__init__(**kwargs)
        # Every process has the same rates, so the maximum is the common value.
        self.add_state("capacity", torch.tensor(torch.nan), dist_reduce_fx="max")

    def update(self, source: Session) -> None:
        """Read the capacity for the running task's current gates, else for a next task that uses no unit yet.

        Raises:
            BadCallError: `source` is not a session.
            NoTaskError: The model of the session has not been traced yet.
        """
        if not isinstance(source, Session):
            raise BadCallError(f"Expected a session, but got {type(source).__name__}.")
        self.capacity = torch.tensor(source.capacity(), dtype=self.dtype, device=self.capacity.device)

    def compute(self) -> Tensor:
        """Return the capacity, a scalar between 0 and 1."""
        return self.capacity
