"""Interleaved timing of training steps: ratios of medians, since absolute times on shared machines mean nothing."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Mapping


def medians(steps: Mapping[str, Callable[[], object]], rounds: int, warmup: int = 3) -> dict[str, float]:
    """Time one step of each variant in turn, in rounds, and return each median in seconds.

    The order is rotated every round, so that no variant always runs behind the same other one.
    """
    times: dict[str, list[float]] = {name: [] for name in steps}
    names = list(steps)
    gc.disable()
    try:
        for number in range(rounds + warmup):
            shift = number % len(names)
            for name in names[shift:] + names[:shift]:
                start = time.perf_counter()
                steps[name]()
                if number >= warmup:
                    times[name].append(time.perf_counter() - start)
            gc.collect()
    finally:
        gc.enable()
    return {name: statistics.median(t) for name, t in times.items()}
