"""Values at the input beside values at the baseline, and multipliers between them (Shrikumar et al. 2017).

A multiplier `m` of an operation `y = f(x)` is a gradient of a kind: `m (x - x') = f(x) - f(x')`. Each operation here
returns `f(x)` bit for bit, with its multiplier in the place of its gradient, so that one backward carries the products
of multipliers from the score down to every layer.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from fgadahat_hooks.functional.mask import apply_linearised_mask


@dataclass(frozen=True, eq=False)
class Pair:
    """One value twice.

    Attributes:
        now: At the input; its gradient is the multiplier.
        then: At the baseline, without gradient.
    """

    now: Tensor
    then: Tensor

    def map(self, f: Callable[[Tensor], Tensor]) -> Pair:
        """Return the pair of a linear function, whose multiplier is its gradient."""
        return Pair(f(self.now), f(self.then))


Term = Pair | Tensor
"""A value that depends on a layer, or a constant."""


def now(term: Term) -> Tensor:
    """Return the value at the input."""
    return term.now if isinstance(term, Pair) else term


def then(term: Term) -> Tensor:
    """Return the value at the baseline."""
    return term.then if isinstance(term, Pair) else term


def instead(value: Tensor, tracked: Tensor) -> Tensor:
    """Return `value` with the gradient of `tracked`."""
    return value.detach() + (tracked - tracked.detach())


def far_apart(x: Pair, eps: float) -> tuple[Tensor, Tensor]:
    """Return where input and baseline differ by `eps` and by more than rounding, and by how much (1 elsewhere)."""
    with torch.no_grad():
        change = x.now - x.then
        noise = 4 * torch.finfo(change.dtype).eps * torch.maximum(x.now.abs(), x.then.abs())
        far = (change != 0) & (change.abs() >= noise.clamp(min=eps)) & change.isfinite()
        return far, change.where(far, torch.ones_like(change))


def rescale(f: Callable[[Tensor], Tensor], x: Pair, eps: float, values: tuple[Tensor, Tensor] | None = None) -> Pair:
    """Return the pair of an element-wise function by the Rescale rule (Eq. 8 and 9).

    The multiplier is `(f(x) - f(x')) / (x - x')`, or the gradient where `x` and `x'` are all but equal, as in captum.

    Args:
        f: The function.
        x: Its argument.
        eps: Least difference that counts as one.
        values: `f(x)` and `f(x')`, if they are known more exactly than `f` gives them.
    """
    far, change = far_apart(x, eps)
    slope_where_near = f(torch.where(far, x.now.detach(), x.now))
    with torch.no_grad():
        end, start = (slope_where_near.detach(), f(x.then)) if values is None else values
        slope = torch.where(far, (end - start) / change, torch.zeros_like(change))
    moved = torch.where(far, x.now, torch.zeros_like(x.now))
    return Pair(apply_linearised_mask(moved, instead(end, slope_where_near), slope), start)


def product(f: Callable[..., Tensor], *terms: Term) -> Pair:
    """Return the pair of a function of degree two at most, such as a product of two activations.

    Its gradient at the point midway is a multiplier: `ab - a'b' = (b + b')/2 (a - a') + (a + a')/2 (b - b')`.
    """
    with torch.no_grad():
        value, start = f(*[now(t) for t in terms]), f(*[then(t) for t in terms])
    middle = [_midway(t) if isinstance(t, Pair) else t for t in terms]
    return Pair(instead(value, f(*middle)), start)


def scaled(x: Pair, factor: Pair) -> Pair:
    """Return the pair of `x r` where `r` is the reciprocal of a size, that of `x` as a rule.

    `xr - x'r' = r_s (x - x') + x_o (r - r')`, with `s` the one of input and baseline where `r` is smaller and `o` the
    other. The point midway would do as well on paper, but where the baseline is all but constant its `r` is huge, and
    the two terms would be huge and cancel, more so with every norm on the way down.
    """
    with torch.no_grad():
        smaller_now = factor.now.abs() <= factor.then.abs()
        by = torch.where(smaller_now, factor.now, factor.then)
        other = torch.where(smaller_now, x.then, x.now)
        value = x.now * factor.now
    return Pair(instead(value, x.now * by + other * factor.now), x.then * factor.then)


def _midway(x: Pair) -> Tensor:
    with torch.no_grad():
        middle = (x.now + x.then) / 2
    return instead(middle, x.now)


def max_pool(x: Pair, at: Callable[[Tensor], tuple[Tensor, Tensor]], axes: int, eps: float) -> Pair:
    """Return the pair of a max pool, by captum's rule.

    What the maximum gains over the baseline's goes to the place where the input has its maximum, what it loses to the
    place where the baseline has its own.

    Args:
        x: What is pooled.
        at: Returns maxima and their places, counted over the last axes.
        axes: How many of the last axes are pooled.
        eps: Least difference that counts as one.
    """
    with torch.no_grad():
        (top, here), (top_then, there) = at(x.now.detach()), at(x.then)
        both = torch.maximum(top, top_then)
    far, change = (t.flatten(-axes) for t in far_apart(x, eps))
    flat, value = x.now.flatten(-axes), top.flatten(-axes)
    for places, part, near in ((here, both - top_then, 1.0), (there, top - both, 0.0)):
        places = places.flatten(-axes)
        share = torch.where(far.gather(-1, places), part.flatten(-axes) / change.gather(-1, places), near)
        picked = flat.gather(-1, places)
        value = apply_linearised_mask(picked, value, share)
    return Pair(value.view_as(top), top_then)
