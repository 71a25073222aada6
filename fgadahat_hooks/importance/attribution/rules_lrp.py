"""The rules of layer-wise relevance propagation by function, in the form of multipliers.

The relevance of a value is `R = z m`. With `m` in place of the gradient, one backward computes it for every layer: a
sum `y` multiplies the gradient it passes on by `y / (y + eps sign(y))`, an element-wise function by `f(z) / z`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from fgadahat_hooks.functional.mask import apply_linearised_mask
from fgadahat_hooks.importance.attribution.rules_functions import FunctionCall, FunctionKind
from fgadahat_hooks.importance.attribution.rules_mode import RuleMode
from fgadahat_hooks.importance.attribution.rules_multipliers import with_gradient_of

Rule = Literal["epsilon", "gamma", "alpha1_beta0"]
"""How a linear or convolutional layer divides relevance among its inputs."""
_SUMS = frozenset((FunctionKind.SUM, FunctionKind.WEIGHTED_SUM, FunctionKind.FIXED_NORM))
_PASS_RELEVANCE = frozenset((FunctionKind.REARRANGE, FunctionKind.SCALE, FunctionKind.MAX_POOL))
_LAYERS = frozenset("linear conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d addmm".split())
_ARGUMENTS = ("input", "weight", "bias")
_ORDER = {"addmm": ("bias", "input", "weight")}
"""First arguments of functions that do not take input, weight and bias in this order."""
_ZERO_AT_ZERO = frozenset(
    "relu relu6 leaky_relu rrelu prelu elu selu celu gelu silu mish hardswish hardshrink softshrink tanhshrink "
    "softsign tanh".split()
)


class LrpRules:
    """The epsilon rule (Bach et al. 2015, Eq. 58) for every sum, or another rule for linear and convolutional layers.

    Args:
        epsilon: The stabiliser.
        rule: Rule of linear and convolutional layers.
        gamma: How much more a positive weight counts by the gamma rule.
    """

    def __init__(self, epsilon: float, rule: Rule, gamma: float) -> None:
        """Keep the options."""
        self._epsilon = epsilon
        self._rule = rule
        self._gamma = gamma

    def __call__(self, call: FunctionCall, mode: RuleMode) -> Any:
        """Run a call by its rule."""
        if call.kind is FunctionKind.WEIGHTED_SUM and self._rule != "epsilon" and _is_layer(call):
            return self._redistributed(call)
        if call.kind in _SUMS:
            return self._stabilised(call.run())
        if call.kind is FunctionKind.ELEMENTWISE and call.name in _ZERO_AT_ZERO:
            return _with_quotient(call)
        if call.kind not in _PASS_RELEVANCE:
            mode.refuse(call)
        return call.run()

    def _stabilised(self, result: Any) -> Any:
        for y in pytree.tree_leaves(result):
            if isinstance(y, Tensor) and y.grad_fn is not None:
                self._divide_relevance(y, y.detach())
        return result

    def _divide_relevance(self, y: Tensor, shares: Tensor) -> None:
        """Multiply the gradient that `y` passes on by `y / (shares + eps sign(shares))`, 0 where `shares` is 0."""
        nothing = torch.zeros_like(shares)
        factor = torch.where(shares == 0, nothing, y.detach() / (shares + self._epsilon * shares.sign()))
        # A hook on the node, not on the tensor: the gradient by `y` itself must stay its own multiplier.
        if y.grad_fn is not None:
            y.grad_fn.register_prehook(_scale_gradient(y.output_nr, factor))

    def _redistributed(self, call: FunctionCall) -> Tensor:
        """Return a layer's output whose relevance is divided among its inputs by the rule, not the layer's weights."""
        with torch.no_grad():
            value = call.run()
        shares = self._gamma_shares(call) if self._rule == "gamma" else _positive_shares(call)
        result = with_gradient_of(value, shares)
        self._divide_relevance(result, shares.detach())
        return result

    def _gamma_shares(self, call: FunctionCall) -> Tensor:
        def raised(w: Tensor) -> Tensor:
            return w + self._gamma * w.clamp(min=0)

        x, weight, bias, run = _unpack(call)
        return run(x, raised(weight), None if bias is None else raised(bias))


def _positive_shares(call: FunctionCall) -> Tensor:
    """Return the sum of all positive terms: inputs times weights of the same sign, and positive biases."""
    x, weight, bias, run = _unpack(call)
    above = run(x.clamp(min=0), weight.clamp(min=0), None if bias is None else bias.clamp(min=0))
    return above + run(x.clamp(max=0), weight.clamp(max=0), None)


def _unpack(call: FunctionCall) -> tuple[Tensor, Tensor, Tensor | None, Callable[..., Tensor]]:
    """Return input, weight and bias of a linear or convolutional function, and a function of these three only."""
    arguments, order = _arguments(call), _ORDER.get(call.name, _ARGUMENTS)
    own: Tensor | None = arguments.get("bias")
    rest = {name: value for name, value in arguments.items() if name not in _ARGUMENTS}

    def run(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if bias is None and own is not None:
            bias = torch.zeros_like(own)  # not every function takes None
        values = {"input": x, "weight": weight, "bias": bias}
        found: Tensor = call.func(*(values[name] for name in order), *call.args[3:], **rest)
        return found

    return arguments["input"], arguments["weight"], own, run


def _arguments(call: FunctionCall) -> dict[str, Any]:
    return dict(zip(_ORDER.get(call.name, _ARGUMENTS), call.args, strict=False)) | call.kwargs


def _is_layer(call: FunctionCall) -> bool:
    """Return whether what depends on a layer is the call's input, not its weight or bias."""
    return call.name in _LAYERS and _arguments(call).get("input") is call.inputs[0]


def _scale_gradient(place: int, factor: Tensor) -> Callable[[tuple[Tensor | None, ...]], tuple[Tensor | None, ...]]:
    def scale(multipliers: tuple[Tensor | None, ...]) -> tuple[Tensor | None, ...]:
        return tuple(m * factor if i == place and m is not None else m for i, m in enumerate(multipliers))

    return scale


def _with_quotient(call: FunctionCall) -> Tensor:
    """Return `f(z)` with the multiplier `f(z) / z`, which passes relevance on unchanged."""
    (z,) = call.inputs
    with torch.no_grad():
        value = call.run_on([z])
        slope = torch.where(z == 0, torch.zeros_like(z), value / z)
    result = apply_linearised_mask(z, value, slope)
    return z.copy_(result) if call.in_place else result
