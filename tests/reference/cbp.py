"""The utility of continual backprop on lists, step by step."""

from __future__ import annotations

from collections.abc import Sequence


def utilities(
    steps: Sequence[Sequence[Sequence[float]]], outgoing: Sequence[float], incoming: Sequence[float], decay: float
) -> list[list[float]]:
    """Return the corrected utility of each unit after each step.

    Args:
        steps: For each step the samples, each with one activation a unit.
        outgoing: Sum of absolute outgoing weights of each unit.
        incoming: Sum of absolute incoming weights of each unit.
        decay: `eta`.
    """
    units = range(len(outgoing))
    mean, utility = [0.0 for _ in units], [0.0 for _ in units]
    found = []
    for number, samples in enumerate(steps):
        for i in units:
            corrected = mean[i] / (1 - decay**number) if number else 0.0
            deviation = sum(abs(h[i] - corrected) for h in samples) / len(samples)
            utility[i] = decay * utility[i] + (1 - decay) * deviation * outgoing[i] / incoming[i]
            mean[i] = decay * mean[i] + (1 - decay) * sum(h[i] for h in samples) / len(samples)
        found.append([u / (1 - decay ** (number + 1)) for u in utility])
    return found
