"""Pairs of values at the input and at the baseline, and the multipliers between them (Shrikumar et al. 2017).

A multiplier `m` of an operation `y = f(x)` is like a gradient between two points: `m (x - x') = f(x) - f(x')`. Each
operation here returns exactly `f(x)`, with its multiplier in place of its gradient, so that one backward computes the
products of multipliers from the score down to every layer.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from fgadahat_hooks.functional.mask import apply_linearised_mask


@dataclass(frozen=True, eq=False)
class Pair:
    """A value at the input and at the baseline.

    Attributes:
        value: At the input; its gradient is the multiplier.
        baseline: At the baseline, without gradient.
    """

    value: Tensor
    baseline: Tensor

    def map(self, f: Callable[[Tensor], Tensor]) -> Pair:
        """Apply a linear function, whose multiplier is its gradient."""
        return Pair(f(self.value), f(self.baseline))


Term = Pair | Tensor
"""A value that depends on a layer, or a constant."""


def value_of(term: Term) -> Tensor:
    """Return the value at the input."""
    return term.value if isinstance(term, Pair) else term


def baseline_of(term: Term) -> Tensor:
    """Return the value at the baseline."""
    return term.baseline if isinstance(term, Pair) else term


def with_gradient_of(value: Tensor, tracked: Tensor) -> Tensor:
    """Return `value` with the gradient of `tracked`."""
    return value.detach() + (tracked - tracked.detach())


def significant_change(x: Pair, eps: float) -> tuple[Tensor, Tensor]:
    """Return where input and baseline differ by `eps` and beyond rounding, and the change there (1 elsewhere)."""
    with torch.no_grad():
        change = x.value - x.baseline
        noise = 4 * torch.finfo(change.dtype).eps * torch.maximum(x.value.abs(), x.baseline.abs())
        far = (change != 0) & (change.abs() >= noise.clamp(min=eps)) & change.isfinite()
        return far, change.where(far, torch.ones_like(change))


def rescale(f: Callable[[Tensor], Tensor], x: Pair, eps: float, values: tuple[Tensor, Tensor] | None = None) -> Pair:
    """Apply an element-wise function by the Rescale rule (Eq. 8 and 9).

    The multiplier is `(f(x) - f(x')) / (x - x')`, or the gradient where `x` and `x'` are nearly equal, as in captum.

    Args:
        f: The function.
        x: Its argument.
        eps: Smallest difference that is divided by.
        values: `f(x)` and `f(x')`, if they are known more precisely than `f` computes them.
    """
    far, change = significant_change(x, eps)
    slope_where_near = f(torch.where(far, x.value.detach(), x.value))
    with torch.no_grad():
        end, start = (slope_where_near.detach(), f(x.baseline)) if values is None else values
        slope = torch.where(far, (end - start) / change, torch.zeros_like(change))
    moved = torch.where(far, x.value, torch.zeros_like(x.value))
    return Pair(apply_linearised_mask(moved, with_gradient_of(end, slope_where_near), slope), start)


def product(f: Callable[..., Tensor], *terms: Term) -> Pair:
    """Apply a function of degree two at most, such as a product of two activations.

    Its gradient at the midpoint is a multiplier: `ab - a'b' = (b + b')/2 (a - a') + (a + a')/2 (b - b')`.
    """
    with torch.no_grad():
        value, start = f(*[value_of(t) for t in terms]), f(*[baseline_of(t) for t in terms])
    middle = [_midpoint(t) if isinstance(t, Pair) else t for t in terms]
    return Pair(with_gradient_of(value, f(*middle)), start)


def times_reciprocal(x: Pair, factor: Pair) -> Pair:
    """Return `x r`, where `r` is the reciprocal of a size, usually that of `x`.

    `xr - x'r' = r_s (x - x') + x_o (r - r')`, where `s` is whichever of input and baseline has the smaller `r`, and `o`
    the other. The midpoint would give a multiplier too, but where the baseline is nearly constant its `r` is huge, and
    the two terms would be huge and cancel, more so with every norm further down.
    """
    with torch.no_grad():
        smaller_at_input = factor.value.abs() <= factor.baseline.abs()
        by = torch.where(smaller_at_input, factor.value, factor.baseline)
        other = torch.where(smaller_at_input, x.baseline, x.value)
        value = x.value * factor.value
    return Pair(with_gradient_of(value, x.value * by + other * factor.value), x.baseline * factor.baseline)


def _midpoint(x: Pair) -> Tensor:
    with torch.no_grad():
        middle = (x.value + x.baseline) / 2
    return with_gradient_of(middle, x.value)


def max_pool(x: Pair, pool: Callable[[Tensor], tuple[Tensor, Tensor]], axes: int, eps: float) -> Pair:
    """Apply a max pool, by captum's rule.

    An increase of the maximum over the baseline's is attributed to the position of the input's maximum, a decrease to
    that of the baseline's maximum.

    Args:
        x: The argument that is pooled.
        pool: Returns maxima and their positions, counted over the last axes.
        axes: Number of last axes that are pooled.
        eps: Smallest difference that is divided by.
    """
    with torch.no_grad():
        (top, here), (baseline_top, there) = pool(x.value.detach()), pool(x.baseline)
        larger = torch.maximum(top, baseline_top)
    far, change = (t.flatten(-axes) for t in significant_change(x, eps))
    flat, value = x.value.flatten(-axes), top.flatten(-axes)
    for places, part, near in ((here, larger - baseline_top, 1.0), (there, top - larger, 0.0)):
        places = places.flatten(-axes)
        share = torch.where(far.gather(-1, places), part.flatten(-axes) / change.gather(-1, places), near)
        picked = flat.gather(-1, places)
        value = apply_linearised_mask(picked, value, share)
    return Pair(value.view_as(top), baseline_top)
