"""DeepLIFT's rules for functions of several elements: multipliers composed of those of their parts.

Each rule takes the arguments of the torch function of that name, with a `Pair` for each that depends on a layer.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from fgadahat_hooks.importance.attribution.rules_multipliers import (
    Pair,
    Term,
    baseline_of,
    product,
    rescale,
    times_reciprocal,
    value_of,
)


class JointRules:
    """The rules by function name. Within them any difference beyond rounding is divided by, however small it is."""

    eps = 0.0

    def __init__(self) -> None:
        """Build the table of rules."""
        self.by_name: dict[str, Callable[..., Pair]] = {
            "softmax": self.softmax,
            "log_softmax": self.log_softmax,
            "layer_norm": self.layer_norm,
            "rms_norm": self.rms_norm,
            "group_norm": self.group_norm,
            "normalize": self.normalize,
            "glu": self.glu,
            "scaled_dot_product_attention": self.attention,
        }

    # ---------------------------------------------------------------- softmax
    def softmax(self, *args: Any, **kwargs: Any) -> Pair:
        """Return `exp(log_softmax(x))`."""
        return rescale(torch.exp, self.log_softmax(*args, **kwargs), self.eps)

    def log_softmax(
        self,
        input: Pair,  # noqa: A002  # torch's name, here and below
        dim: int | None = None,
        *rest: Any,
        dtype: torch.dtype | None = None,
        **_: Any,
    ) -> Pair:
        """Return `x - log sum exp x`; a common shift keeps the exponentials finite."""
        if dim is None:
            dim = 0 if input.value.dim() in (0, 1, 3) else 1  # as torch chooses
        dtype = next((r for r in rest if isinstance(r, torch.dtype)), dtype)
        x = input if dtype is None else input.map(lambda t: t.to(dtype))
        x = x.map(lambda t: t.clamp(min=torch.finfo(t.dtype).min / 4))  # -inf of a mask, as a finite constant
        shift = torch.maximum(x.value, x.baseline).detach().amax(dim, keepdim=True)
        x = x.map(lambda t: t - shift)
        total = rescale(torch.exp, x, self.eps).map(lambda t: t.sum(dim, keepdim=True))
        exact = (torch.logsumexp(x.value.detach(), dim, keepdim=True), torch.logsumexp(x.baseline, dim, keepdim=True))
        log = rescale(lambda t: t.clamp(min=torch.finfo(t.dtype).tiny).log(), total, self.eps, exact)
        return Pair(x.value - log.value, x.baseline - log.baseline)

    # ---------------------------------------------------------------- norms
    def layer_norm(
        self,
        input: Pair,  # noqa: A002
        normalized_shape: Sequence[int],
        weight: Term | None = None,
        bias: Term | None = None,
        eps: float = 1e-5,
        *_: Any,
    ) -> Pair:
        """Return the deviations from the mean, times the reciprocal of their standard deviation."""
        axes = list(range(-len(normalized_shape), 0))
        centred = input.map(lambda t: t - t.mean(axes, keepdim=True))
        return _affine(self._divide_by_rms(centred, axes, eps), weight, bias)

    def rms_norm(
        self,
        input: Pair,  # noqa: A002
        normalized_shape: Sequence[int],
        weight: Term | None = None,
        eps: float | None = None,
    ) -> Pair:
        """Return the values, times the reciprocal of their root mean square."""
        eps = torch.finfo(input.value.dtype).eps if eps is None else eps
        return _affine(self._divide_by_rms(input, list(range(-len(normalized_shape), 0)), eps), weight, None)

    def group_norm(
        self,
        input: Pair,  # noqa: A002
        num_groups: int,
        weight: Tensor | None = None,
        bias: Tensor | None = None,
        eps: float = 1e-5,
        *_: Any,
    ) -> Pair:
        """Return a layer norm of each group of channels."""
        shape = input.value.shape
        grouped = input.map(lambda t: t.reshape(shape[0], num_groups, -1))
        done = self.layer_norm(grouped, grouped.value.shape[-1:], eps=eps).map(lambda t: t.reshape(shape))
        weight, bias = (None if p is None else p.view(-1, *[1] * (len(shape) - 2)) for p in (weight, bias))
        return _affine(done, weight, bias)

    def normalize(
        self,
        input: Pair,  # noqa: A002
        p: float = 2.0,
        dim: int = 1,
        eps: float = 1e-12,
        **_: Any,
    ) -> Pair:
        """Return the values, times the reciprocal of their `p`-norm."""
        powers = rescale(lambda t: t.abs().pow(p), input, self.eps).map(lambda t: t.sum(dim, keepdim=True))
        return times_reciprocal(input, rescale(lambda t: t.pow(1 / p).clamp(min=eps).reciprocal(), powers, self.eps))

    def _divide_by_rms(self, x: Pair, axes: list[int], eps: float) -> Pair:
        squares = product(torch.mul, x, x).map(lambda t: t.mean(axes, keepdim=True))
        return times_reciprocal(x, rescale(lambda t: (t + eps).rsqrt(), squares, self.eps))

    # ---------------------------------------------------------------- gates and attention
    def glu(self, input: Pair, dim: int = -1) -> Pair:  # noqa: A002
        """Return the first half times the sigmoid of the second."""
        values, gates = (input.map(lambda t, i=i: t.chunk(2, dim)[i]) for i in (0, 1))  # type: ignore[misc]
        return product(torch.mul, values, rescale(torch.sigmoid, gates, self.eps))

    def attention(
        self,
        query: Term,
        key: Term,
        value: Term,
        attn_mask: Term | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: float | None = None,
        enable_gqa: bool = False,
    ) -> Pair:
        """Return `softmax(query key^T scale + mask) value`."""
        if enable_gqa:
            times = value_of(query).shape[-3] // value_of(key).shape[-3]
            key, value = (_map(t, lambda x: x.repeat_interleave(times, -3)) for t in (key, value))
        factor = 1 / math.sqrt(value_of(query).shape[-1]) if scale is None else scale
        scores = product(lambda q, k: q @ k.mT * factor, query, key)
        if is_causal:
            attn_mask = torch.ones(scores.value.shape[-2:], dtype=torch.bool, device=scores.value.device).tril()
        return product(torch.matmul, self.softmax(_masked(scores, attn_mask), -1), value)


def _map(x: Term, f: Callable[[Tensor], Tensor]) -> Term:
    return x.map(f) if isinstance(x, Pair) else f(x)


def _masked(scores: Pair, mask: Term | None) -> Pair:
    if mask is None:
        return scores
    if isinstance(mask, Tensor) and mask.dtype == torch.bool:
        return scores.map(lambda t: t.masked_fill(~mask, torch.finfo(t.dtype).min))
    return Pair(scores.value + value_of(mask), scores.baseline + baseline_of(mask))


def _affine(x: Pair, weight: Term | None, bias: Term | None) -> Pair:
    if weight is not None:
        x = product(torch.mul, x, weight)
    return x if bias is None else Pair(x.value + value_of(bias), x.baseline + baseline_of(bias))
