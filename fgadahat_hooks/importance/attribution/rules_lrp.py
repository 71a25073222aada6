"""What layer-wise relevance propagation does at each function, in the form of multipliers.

The relevance of a value is `R = z m`. With `m` in the place of the gradient, one backward carries it to every layer:
a sum `y` passes its own gradient times `y / (y + eps sign(y))`, everything that has one output an input its quotient.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from fgadahat_hooks.functional.mask import on_line
from fgadahat_hooks.importance.attribution.rules import Call, Kind
from fgadahat_hooks.importance.attribution.rules_watch import Watch

_SUMS = frozenset((Kind.SUM, Kind.WEIGHTED_SUM, Kind.FIXED_NORM))
_PASSED = frozenset((Kind.MOVE, Kind.SCALE, Kind.MAX_POOL))
_ZERO_AT_ZERO = frozenset(
    "relu relu6 leaky_relu rrelu prelu elu selu celu gelu silu mish hardswish hardshrink softshrink tanhshrink "
    "softsign tanh".split()
)


class LrpRules:
    """The epsilon rule (Bach et al. 2015, Eq. 58).

    Args:
        epsilon: The stabiliser.
    """

    def __init__(self, epsilon: float) -> None:
        """Keep the stabiliser."""
        self._epsilon = epsilon

    def __call__(self, call: Call, watch: Watch) -> Any:
        """Run a call."""
        if call.kind in _SUMS:
            return self._stabilised(call.run())
        if call.kind is Kind.CURVE and call.name in _ZERO_AT_ZERO:
            return _by_quotient(call)
        if call.kind not in _PASSED:
            watch.refuse(call)
        return call.run()

    def _stabilised(self, result: Any) -> Any:
        for y in pytree.tree_leaves(result):
            if isinstance(y, Tensor) and y.grad_fn is not None:
                # On the node, not on the tensor: what is asked of `y` itself is its own multiplier, not that below.
                y.grad_fn.register_prehook(_scale(y.output_nr, self._factor(y.detach())))
        return result

    def _factor(self, y: Tensor) -> Tensor:
        nothing = torch.zeros_like(y)
        return torch.where(y == 0, nothing, y / (y + self._epsilon * y.sign()))


def _scale(place: int, factor: Tensor) -> Callable[[tuple[Tensor | None, ...]], tuple[Tensor | None, ...]]:
    def scale(multipliers: tuple[Tensor | None, ...]) -> tuple[Tensor | None, ...]:
        return tuple(m * factor if i == place and m is not None else m for i, m in enumerate(multipliers))

    return scale


def _by_quotient(call: Call) -> Tensor:
    """Return `f(z)` with the multiplier `f(z) / z`, which passes relevance on as it is."""
    (z,) = call.inputs
    with torch.no_grad():
        value = call.on([z])
        slope = torch.where(z == 0, torch.zeros_like(z), value / z)
    result = on_line(z, value, slope)
    return z.copy_(result) if call.in_place else result
