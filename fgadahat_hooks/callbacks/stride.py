"""On which steps importance is measured."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from typing import Any

import torch

from fgadahat_hooks.distributed.ranks import share_first


class Stride:
    """Every n-th step, or as often as a share of the step time allows.

    With a budget, a measured step is followed by so many steps that measuring takes at most that share of the time:
    `n = ceil(time to measure / (budget * time of a step))`, never below `every`. The number in force is part of the
    state, so that a resumed task goes on with it. Without a budget nothing depends on the clock.

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
        self._cost = 0.0
        self._step = 0.0
        self._left: float | None = None

    def due(self) -> bool:
        """Return whether this step is to be measured; asked once a step."""
        self._watch_clock()
        self._since += 1
        if self._since < self._current:
            return False
        self._since = 0
        return True

    def _watch_clock(self) -> None:
        """Learn how long a step takes, and set the number of steps between two measured ones anew."""
        if self.budget is None:
            return
        now = time.perf_counter()
        if self._left is not None:
            step = now - self._left
            self._step = step if self._step == 0 else 0.8 * self._step + 0.2 * step
            if self._cost:
                self._current = max(self.every, math.ceil(self._cost / (self.budget * self._step)))
                self._agree()
        self._left = now

    def _agree(self) -> None:
        """Let all ranks measure on the same steps: those of the first."""
        shared = torch.tensor([self._current])
        share_first([shared])
        self._current = int(shared)

    def took(self, seconds: float) -> None:
        """Learn how long measuring has taken; it is no part of the step's own time."""
        if self.budget is not None:
            self._cost = seconds if self._cost == 0 else 0.5 * (self._cost + seconds)
            self._left = time.perf_counter()

    def state_dict(self) -> dict[str, Any]:
        """Return the number of steps in force and how many have passed."""
        return {"current": self._current, "since": self._since}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from there."""
        self._current, self._since = state["current"], state["since"]
