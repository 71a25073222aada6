"""The sparsity terms, unit by unit."""

from __future__ import annotations


def layer_sparsity(mask: list[float], cumulative: list[float]) -> float:
    """Return the taken share of the free units of one layer."""
    return regularization([mask], [cumulative], "original")


def regularization(masks: list[list[float]], cumulative: list[list[float]], mode: str, budget: float = 0.0) -> float:
    """Return one ratio over all layers, or its mean with the unused share of the used units."""
    taken = free = shared = used = 0.0
    for layer_mask, layer_cumulative in zip(masks, cumulative, strict=True):
        here = 0.0
        for m, c in zip(layer_mask, layer_cumulative, strict=True):
            here += m * (1 - c)
            free += 1 - c
            shared += m * c
            used += c
        allowed = budget * len(layer_mask)
        taken += here - allowed if here > allowed else 0.0
    first = taken / free if free > 0 else 0.0
    if mode == "original":
        return first
    second = 1 - shared / used if used > 0 else 0.0
    return (first + second) / 2
