"""Min-max scaling of one layer, unit by unit."""

from __future__ import annotations


def min_max(importance: list[float]) -> list[float]:
    """Return FG-AdaHAT Eq. 5; a constant layer is 1 everywhere, or 0 if the constant is 0."""
    low, high = min(importance), max(importance)
    if low == high:
        return [0.0 if low == 0 else 1.0] * len(importance)
    return [(value - low) / (high - low + 1e-8) for value in importance]
