"""Quadrature over the straight path from a baseline to the inputs, by captum's rules, so that results agree."""

from __future__ import annotations

from typing import Literal

METHODS = ("gausslegendre", "riemann_right", "riemann_left", "riemann_middle", "riemann_trapezoid")
Method = Literal["gausslegendre", "riemann_right", "riemann_left", "riemann_middle", "riemann_trapezoid"]


def quadrature(method: Method, n: int) -> tuple[list[float], list[float]]:
    """Return the `n` points in [0, 1] of a rule and their weights."""
    from captum.attr._utils.approximation_methods import approximation_parameters  # captum loads slowly

    weights, points = approximation_parameters(method)
    return points(n), weights(n)
