"""HAT's gate, one number at a time."""

from __future__ import annotations

import math


def sigmoid(z: float) -> float:
    """Return the logistic function of z."""
    return 1 / (1 + math.exp(-z)) if z >= 0 else math.exp(z) / (1 + math.exp(z))


def sigmoid_slope(z: float) -> float:
    """Return the derivative of `sigmoid`, without cancellation."""
    return sigmoid(z) * sigmoid(-z)


def anneal(batch: int, num_batches: int, s_max: float) -> float:
    """Return HAT Eq. 3."""
    if num_batches == 1:
        return s_max
    low = 1 / s_max
    return low + (s_max - low) * ((batch - 1) / (num_batches - 1))


def compensation(e: float, s: float, s_max: float, threshold: float) -> float:
    """Return the factor of HAT Sec. 2.5."""
    z = min(max(s * e, -threshold), threshold)
    return s_max * (math.cosh(z) + 1) / (s * (math.cosh(e) + 1))


def compensated_slope(e: float, s: float, s_max: float, threshold: float) -> float:
    """Return the derivative of sigmoid(s e) times the factor."""
    return s * sigmoid_slope(s * e) * compensation(e, s, s_max, threshold)
