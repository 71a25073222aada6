"""Decides on which steps importance is measured."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from typing import Any

import torch

from fgadahat_hooks.distributed.ranks import broadcast_from_first


class Stride:
    """Every n-th step, or as often as a share of the step time allows.

    With a budget, a measured step is followed by so many steps that measuring takes at most that share of the time:
    `n = ceil(time to measure / (budget * time of a step))`, never below `every`. The current `n` is part of the
    state, so that a resumed task continues with it. Without a budget nothing depends on the clock.

    Args:
        every: Measure on every n-th step.
        budget: Share of the time, or None.
    """

    def __init__(self, every: int, budget: float | None = None) -> None:
        """Measure on the first step."""
        self.every = every
        self.budget = budget
        self._current = every
        self._since = every - 1
        self._measuring_time = 0.0
        self._step_time = 0.0
        self._last_time: float | None = None

    def due(self) -> bool:
        """Return whether this step is to be measured; call it once a step."""
        self._update_interval()
        self._since += 1
        if self._since < self._current:
            return False
        self._since = 0
        return True

    def _update_interval(self) -> None:
        """Update the mean time of a step, and from it the number of steps from one measured step to the next."""
        if self.budget is None:
            return
        now = time.perf_counter()
        if self._last_time is not None:
            step = now - self._last_time
            self._step_time = step if self._step_time == 0 else 0.8 * self._step_time + 0.2 * step
            if self._measuring_time:
                interval = math.ceil(self._measuring_time / (self.budget * self._step_time))
                self._current = _of_first_rank(max(self.every, interval))
        self._last_time = now

    def record_measuring_time(self, seconds: float) -> None:
        """Update the mean time that measuring takes; it does not count towards the step's own time."""
        if self.budget is not None:
            self._measuring_time = seconds if self._measuring_time == 0 else 0.5 * (self._measuring_time + seconds)
            self._last_time = time.perf_counter()

    def state_dict(self) -> dict[str, Any]:
        """Return the current number of steps and how many have passed."""
        return {"current": self._current, "since": self._since}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self._current, self._since = state["current"], state["since"]


def _of_first_rank(interval: int) -> int:
    """Return the interval of the first rank, so that all ranks measure on the same steps."""
    value = torch.tensor([interval])
    broadcast_from_first([value])
    return int(value)
