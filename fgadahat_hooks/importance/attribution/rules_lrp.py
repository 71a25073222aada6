"""What layer-wise relevance propagation does at each function, in the form of multipliers.

The relevance of a value is `R = z m`. With `m` in the place of the gradient, one backward carries it to every layer:
a sum `y` passes its own gradient times `y / (y + eps sign(y))`, everything that has one output an input its quotient.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from fgadahat_hooks.functional.mask import apply_linearised_mask
from fgadahat_hooks.importance.attribution.rules import Call, Kind
from fgadahat_hooks.importance.attribution.rules_pair import instead
from fgadahat_hooks.importance.attribution.rules_watch import Watch

Rule = Literal["epsilon", "gamma", "alpha1_beta0"]
"""How a linear or convolutional layer shares relevance among its inputs."""
_SUMS = frozenset((Kind.SUM, Kind.WEIGHTED_SUM, Kind.FIXED_NORM))
_PASSED = frozenset((Kind.MOVE, Kind.SCALE, Kind.MAX_POOL))
_LAYERS = frozenset("linear conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d addmm".split())
_USUAL = ("input", "weight", "bias")
_ORDER = {"addmm": ("bias", "input", "weight")}
"""Their first arguments, where they come in another order than input, weight and bias."""
_ZERO_AT_ZERO = frozenset(
    "relu relu6 leaky_relu rrelu prelu elu selu celu gelu silu mish hardswish hardshrink softshrink tanhshrink "
    "softsign tanh".split()
)


class LrpRules:
    """The epsilon rule (Bach et al. 2015, Eq. 58) for every sum, or another for sums weighted by a layer.

    Args:
        epsilon: The stabiliser.
        rule: For linear and convolutional layers.
        gamma: How much more a positive weight counts by the gamma rule.
    """

    def __init__(self, epsilon: float, rule: Rule, gamma: float) -> None:
        """Keep the options."""
        self._epsilon = epsilon
        self._rule = rule
        self._gamma = gamma

    def __call__(self, call: Call, watch: Watch) -> Any:
        """Run a call."""
        if call.kind is Kind.WEIGHTED_SUM and self._rule != "epsilon" and _is_layer(call):
            return self._shared_anew(call)
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
                self._weigh(y, y.detach())
        return result

    def _weigh(self, y: Tensor, shares: Tensor) -> None:
        """Let the relevance of `y` be divided by the sum of the shares below it."""
        nothing = torch.zeros_like(shares)
        factor = torch.where(shares == 0, nothing, y.detach() / (shares + self._epsilon * shares.sign()))
        # On the node, not on the tensor: what is asked of `y` itself is its own multiplier, not that below.
        if y.grad_fn is not None:
            y.grad_fn.register_prehook(_scale(y.output_nr, factor))

    def _shared_anew(self, call: Call) -> Tensor:
        """Return a layer's output whose relevance goes to the inputs by other weights than the layer's own."""
        with torch.no_grad():
            value = call.run()
        shares = self._raised(call) if self._rule == "gamma" else _positive(call)
        result = instead(value, shares)
        self._weigh(result, shares.detach())
        return result

    def _raised(self, call: Call) -> Tensor:
        def raised(w: Tensor) -> Tensor:
            return w + self._gamma * w.clamp(min=0)

        x, weight, bias, run = _opened(call)
        return run(x, raised(weight), None if bias is None else raised(bias))


def _positive(call: Call) -> Tensor:
    """Return the sum of what is positive: inputs times weights of the same sign, and positive biases."""
    x, weight, bias, run = _opened(call)
    above = run(x.clamp(min=0), weight.clamp(min=0), None if bias is None else bias.clamp(min=0))
    return above + run(x.clamp(max=0), weight.clamp(max=0), None)


def _opened(call: Call) -> tuple[Tensor, Tensor, Tensor | None, Callable[..., Tensor]]:
    """Return input, weight and bias of a linear or convolutional function, and the function of these three alone."""
    named, order = _named(call), _ORDER.get(call.name, _USUAL)
    own: Tensor | None = named.get("bias")
    rest = {name: value for name, value in named.items() if name not in _USUAL}

    def run(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if bias is None and own is not None:
            bias = torch.zeros_like(own)  # not every function takes None
        values = {"input": x, "weight": weight, "bias": bias}
        found: Tensor = call.func(*(values[name] for name in order), *call.args[3:], **rest)
        return found

    return named["input"], named["weight"], own, run


def _named(call: Call) -> dict[str, Any]:
    return dict(zip(_ORDER.get(call.name, _USUAL), call.args, strict=False)) | call.kwargs


def _is_layer(call: Call) -> bool:
    """Return whether a call applies weights to what depends on a layer, and not a layer's values to something else."""
    return call.name in _LAYERS and _named(call).get("input") is call.inputs[0]


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
    result = apply_linearised_mask(z, value, slope)
    return z.copy_(result) if call.in_place else result
