"""The sparsity terms, unit by unit."""

from __future__ import annotations


def layer_sparsity(mask: list[float], cumulative: list[float]) -> float:
    """Return the share of a layer's free units that the task takes."""
    return regularization([mask], [cumulative], "original")


def regularization(masks: list[list[float]], cumulative: list[list[float]], mode: str, budget: float = 0.0) -> float:
    """Return one ratio over all layers, or its mean with the share of the used units that is not reused."""
    taken = free = reused = used = 0.0
    for layer_mask, layer_cumulative in zip(masks, cumulative, strict=True):
        layer_taken = 0.0
        for m, c in zip(layer_mask, layer_cumulative, strict=True):
            layer_taken += m * (1 - c)
            free += 1 - c
            reused += m * c
            used += c
        allowed = budget * len(layer_mask)
        taken += layer_taken - allowed if layer_taken > allowed else 0.0
    first = taken / free if free > 0 else 0.0
    if mode == "original":
        return first
    second = 1 - reused / used if used > 0 else 0.0
    return (first + second) / 2
