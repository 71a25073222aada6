"""Gate scales of a task by the formula, batch by batch, in plain numbers."""

from __future__ import annotations


def scales(epochs: int, batches: int, s_max: float, power: float, settle: float) -> list[tuple[float, bool]]:
    """Return scale and "is settled" of every batch of a task that is annealed as a whole."""
    whole = epochs * batches
    soft = max(1, round((1 - settle) * whole))
    found = []
    for place in range(1, whole + 1):
        if place > soft or soft == 1:
            found.append((s_max, place > soft))
        else:
            found.append((1 / s_max + (s_max - 1 / s_max) * ((place - 1) / (soft - 1)) ** power, False))
    return found
