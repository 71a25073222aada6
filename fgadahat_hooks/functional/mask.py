"""Masks, annealing and the compensated embedding gradient (HAT, Serra et al. 2018)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from fgadahat_hooks.errors import BadCallError


def anneal(batch: int, num_batches: int, s_max: float, power: float = 1.0) -> float:
    """Return the gate scale `s` of one batch (HAT Eq. 3), restarting every epoch.

    `s = 1/s_max + (s_max - 1/s_max) ((b - 1) / (B - 1))^p` with `b` counted from 1, so that the first batch has exactly
    `1/s_max` and the last exactly `s_max`. An epoch of one batch has `s = s_max`. HAT has `p = 1`; with a larger power
    (this library's own addition) gates stay soft for longer, so that a task trains more units before it selects some.

    Args:
        batch: Number `b` of the batch in its epoch, 1 to `num_batches`.
        num_batches: Batches `B` of one epoch.
        s_max: Largest scale, > 0.
        power: Exponent `p` > 0.

    Raises:
        BadCallError: If `batch` is not within 1 and `num_batches`.
    """
    if not 1 <= batch <= num_batches:
        raise BadCallError(
            f"Expected `batch` to be within 1 and num_batches={num_batches}, but got {batch}. "
            "Batches of an epoch are counted from 1."
        )
    if batch == num_batches:
        return s_max  # the formula would round
    if power == 1:  # in the order of operations of Eq. 3, for the same rounding
        return 1 / s_max + (s_max - 1 / s_max) * (batch - 1) / (num_batches - 1)
    progress: float = ((batch - 1) / (num_batches - 1)) ** power
    return 1 / s_max + (s_max - 1 / s_max) * progress


def soft_mask(embedding: Tensor, scale: Tensor | float) -> Tensor:
    """Return the training mask `m = sigmoid(s e)` (HAT Eq. 1), shape of `embedding`."""
    return torch.sigmoid(scale * embedding)


def hard_mask(embedding: Tensor) -> Tensor:
    """Return the binary mask `e > 0` of a finished task (limit of HAT Eq. 1 for `s -> inf`), bool."""
    return embedding.detach() > 0


def compensate(grad: Tensor, embedding: Tensor, scale: Tensor | float, s_max: float, clamp_threshold: float) -> Tensor:
    """Return the compensated embedding gradient, term by term as printed (HAT Sec. 2.5).

    `q' = s_max (cosh(s e) + 1) / (s (cosh(e) + 1)) q`, with `s e` clamped to `[-clamp_threshold, clamp_threshold]`.
    The gate uses `annealed_gate`, which gives the same number without computing `cosh(50)`.

    Args:
        grad: Gradient `q` of the loss with respect to the embedding, `(units,)`.
        embedding: Task embedding `e`, `(units,)`.
        scale: Gate scale `s` of the forward that produced `q`.
        s_max: Largest scale.
        clamp_threshold: Bound on `|s e|` in the numerator.
    """
    clamped = (scale * embedding).clamp(-clamp_threshold, clamp_threshold)
    return s_max * (torch.cosh(clamped) + 1) / (scale * (torch.cosh(embedding) + 1)) * grad


def _compensated_slope(embedding: Tensor, scale: Tensor, s_max: float, clamp_threshold: float) -> Tensor:
    """Return `dm/de` after compensation: `s_max sigmoid'(e) (cosh(c) + 1) / (cosh(s e) + 1)`, `c` = clamped `s e`.

    `cosh(z) + 1 = e^|z| (1 + e^-|z|)^2 / 2` turns the quotient into factors that are at most 1, hence no overflow in
    any dtype; within the threshold it is exactly 1.
    """
    scaled = (scale * embedding).abs()
    quotient = torch.exp((clamp_threshold - scaled).clamp(max=0))
    if clamp_threshold < _EXP_NEGLIGIBLE_FROM:
        clamped = scaled.clamp(max=clamp_threshold)
        quotient = quotient * ((1 + torch.exp(-clamped)) / (1 + torch.exp(-scaled))).square()
    # sigmoid' is even; at -|e| the sigmoid is small and its complement near 1, so that nothing cancels.
    slope: Tensor = torch.ops.aten.sigmoid_backward(quotient * s_max, torch.sigmoid(-embedding.abs()))
    return slope


_EXP_NEGLIGIBLE_FROM = 38.0
"""From this `z` on `1 + e^-z` is 1 in double precision, so the second factor of the quotient can be omitted."""


def linearised_mask(embedding: Tensor, scale: Tensor, s_max: float, clamp_threshold: float) -> tuple[Tensor, Tensor]:
    """Return the value `sigmoid(s e)` of the training mask and its compensated slope, both without gradient.

    Args:
        embedding: Task embedding `e`, `(units,)`, of one layer or of several concatenated.
        scale: Gate scale `s`, a tensor without dimensions.
        s_max: Largest scale.
        clamp_threshold: Bound on `|s e|` in the numerator of the compensation.
    """
    fixed, scale = embedding.detach(), scale.detach()
    return torch.sigmoid(scale * fixed), _compensated_slope(fixed, scale, s_max, clamp_threshold)


def apply_linearised_mask(embedding: Tensor, value: Tensor, slope: Tensor) -> Tensor:
    """Return `value`, with the gradient `slope` with respect to the embedding: a linear function through the point.

    The value is exact, since `slope * 0` adds nothing. A custom autograd function would do the same at five times the
    cost of a call.
    """
    return torch.addcmul(value, slope, embedding - embedding.detach())


def annealed_gate(embedding: Tensor, scale: Tensor, s_max: float, clamp_threshold: float) -> Tensor:
    """Return the training mask `sigmoid(s e)` with the compensated gradient (HAT Eq. 1 and Sec. 2.5).

    Each backward compensates its own gradient, so accumulation over several backward passes and loss scaling stay
    correct. The chain rule's `s sigmoid'(s e)` and the compensation factor are one expression: since
    `sigmoid'(z) = 1 / (2 (cosh z + 1))`, the steep parts cancel and nothing underflows within the threshold.

    Args:
        embedding: Task embedding `e`, `(units,)`.
        scale: Gate scale `s`, a tensor without dimensions; it gets no gradient.
        s_max: Largest scale.
        clamp_threshold: Bound on `|s e|` in the numerator of the compensation.
    """
    return apply_linearised_mask(embedding, *linearised_mask(embedding, scale, s_max, clamp_threshold))


INITS: dict[str, Callable[..., Tensor]] = {
    "N01": torch.randn,
    "U-11": lambda units, **kwargs: torch.rand(units, **kwargs) * 2 - 1,
    "U01": torch.rand,
    "U-10": lambda units, **kwargs: torch.rand(units, **kwargs) - 1,
}
"""How a task's embedding is drawn, by name; `last`, which copies the previous embedding if there is one, is absent."""


def initial_embedding(
    units: int,
    mode: str,
    previous: Tensor | None = None,
    *,
    generator: torch.Generator | None = None,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
) -> Tensor:
    """Return a new task's embedding `e`, `(units,)` (HAT Sec. 2.5 draws it from N(0, 1)).

    Args:
        units: Units of the layer.
        mode: `N01` standard normal; `U-11`, `U01`, `U-10` uniform on (-1, 1), (0, 1), (-1, 0); `last` a copy of
            `previous`, or `N01` when there is none.
        previous: Embedding of the task before, `(units,)`.
        generator: Source of the random numbers, on `device`; the global one when absent.
        dtype: Type of the result.
        device: Device of the result.

    Raises:
        BadCallError: If `mode` is none of these.
    """
    if mode not in INITS and mode != "last":
        raise BadCallError(f"Expected `mode` to be one of {[*INITS, 'last']}, but got {mode!r}.")
    if mode == "last" and previous is not None:
        return previous.detach().to(dtype=dtype, device=device, copy=True)
    return INITS["N01" if mode == "last" else mode](units, generator=generator, dtype=dtype, device=device)
