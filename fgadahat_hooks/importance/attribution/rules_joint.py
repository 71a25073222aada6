"""Multipliers of functions of several elements, put together from those of their parts.

Each takes the arguments of the function of torch of that name, pairs in the place of what depends on a layer.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from fgadahat_hooks.importance.attribution.rules_pair import Pair, Term, now, product, rescale, scaled, then


class JointRules:
    """The rules. Within them a difference counts as one when it is more than rounding, however small it is."""

    eps = 0.0

    def __init__(self) -> None:
        """List the rules."""
        self.of: dict[str, Callable[..., Pair]] = {
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
            dim = 0 if input.now.dim() in (0, 1, 3) else 1  # as torch chooses
        dtype = next((r for r in rest if isinstance(r, torch.dtype)), dtype)
        x = input if dtype is None else input.map(lambda t: t.to(dtype))
        x = x.map(lambda t: t.clamp(min=torch.finfo(t.dtype).min / 4))  # a mask's infinity, as a constant
        shift = torch.maximum(x.now, x.then).detach().amax(dim, keepdim=True)
        x = x.map(lambda t: t - shift)
        total = rescale(torch.exp, x, self.eps).map(lambda t: t.sum(dim, keepdim=True))
        exact = (torch.logsumexp(x.now.detach(), dim, keepdim=True), torch.logsumexp(x.then, dim, keepdim=True))
        log = rescale(lambda t: t.clamp(min=torch.finfo(t.dtype).tiny).log(), total, self.eps, exact)
        return Pair(x.now - log.now, x.then - log.then)

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
        """Return the deviations from the mean, times the reciprocal of their spread."""
        axes = list(range(-len(normalized_shape), 0))
        centred = input.map(lambda t: t - t.mean(axes, keepdim=True))
        return _affine(self._by_size(centred, axes, eps), weight, bias)

    def rms_norm(
        self,
        input: Pair,  # noqa: A002
        normalized_shape: Sequence[int],
        weight: Term | None = None,
        eps: float | None = None,
    ) -> Pair:
        """Return the values, times the reciprocal of their size."""
        least = torch.finfo(input.now.dtype).eps if eps is None else eps
        return _affine(self._by_size(input, list(range(-len(normalized_shape), 0)), least), weight, None)

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
        shape = input.now.shape
        grouped = input.map(lambda t: t.reshape(shape[0], num_groups, -1))
        done = self.layer_norm(grouped, grouped.now.shape[-1:], eps=eps).map(lambda t: t.reshape(shape))
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
        return scaled(input, rescale(lambda t: t.pow(1 / p).clamp(min=eps).reciprocal(), powers, self.eps))

    def _by_size(self, x: Pair, axes: list[int], eps: float) -> Pair:
        squares = product(torch.mul, x, x).map(lambda t: t.mean(axes, keepdim=True))
        return scaled(x, rescale(lambda t: (t + eps).rsqrt(), squares, self.eps))

    # ---------------------------------------------------------------- gates and attention
    def glu(self, input: Pair, dim: int = -1) -> Pair:  # noqa: A002
        """Return one half times the sigmoid of the other."""
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
            times = now(query).shape[-3] // now(key).shape[-3]
            key, value = (_map(t, lambda x: x.repeat_interleave(times, -3)) for t in (key, value))
        factor = 1 / math.sqrt(now(query).shape[-1]) if scale is None else scale
        scores = product(lambda q, k: q @ k.mT * factor, query, key)
        if is_causal:
            attn_mask = torch.ones(scores.now.shape[-2:], dtype=torch.bool, device=scores.now.device).tril()
        return product(torch.matmul, self.softmax(_masked(scores, attn_mask), -1), value)


def _map(x: Term, f: Callable[[Tensor], Tensor]) -> Term:
    return x.map(f) if isinstance(x, Pair) else f(x)


def _masked(scores: Pair, mask: Term | None) -> Pair:
    if mask is None:
        return scores
    if isinstance(mask, Tensor) and mask.dtype == torch.bool:
        return scores.map(lambda t: t.masked_fill(~mask, torch.finfo(t.dtype).min))
    return Pair(scores.now + now(mask), scores.then + then(mask))


def _affine(x: Pair, weight: Term | None, bias: Term | None) -> Pair:
    if weight is not None:
        x = product(torch.mul, x, weight)
    return x if bias is None else Pair(x.now + now(bias), x.then + then(bias))
