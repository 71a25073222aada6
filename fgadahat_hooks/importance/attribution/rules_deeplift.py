"""DeepLIFT's rules by function: two forwards, the second with multipliers in place of gradients."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from fgadahat_hooks.errors import CapabilityError
from fgadahat_hooks.importance.attribution.rules_deeplift_joint import JointRules
from fgadahat_hooks.importance.attribution.rules_functions import FunctionCall, FunctionKind
from fgadahat_hooks.importance.attribution.rules_mode import RuleMode
from fgadahat_hooks.importance.attribution.rules_multipliers import (
    Pair,
    max_pool,
    product,
    rescale,
    times_reciprocal,
    with_gradient_of,
)

Interactions = Literal["exact", "gradient"]
"""Multipliers of products of activations, softmax, norms and attention: composed, or the gradient."""
_LINEAR = frozenset(
    (FunctionKind.REARRANGE, FunctionKind.SCALE, FunctionKind.SUM, FunctionKind.WEIGHTED_SUM, FunctionKind.FIXED_NORM)
)
_DECOMPOSED = "multi_head_attention_forward"


class DeepLiftRules:
    """Records the arguments of all non-linear functions at the baseline, then applies multipliers at the input.

    Calls of the two forwards are matched by their order, so that modules may be used twice, and functions like modules.

    Args:
        eps: Smallest difference of an argument that is divided by.
        interactions: `exact` or `gradient`.
    """

    def __init__(self, eps: float, interactions: Interactions) -> None:
        """Start with nothing recorded."""
        self._eps = eps
        self._exact = interactions == "exact"
        self._joint = JointRules()
        self._recorded: deque[tuple[str, list[Tensor]]] = deque()
        self._recording = False

    @contextmanager
    def record_baseline(self) -> Iterator[None]:
        """Run the baseline's forward in the block: its graph shows what depends on a layer, but saves no tensors."""
        self._recorded.clear()
        self._recording = True
        nothing = torch.empty(0)
        try:
            with torch.autograd.graph.saved_tensors_hooks(lambda _: nothing, lambda _: nothing):
                yield
        finally:
            self._recording = False

    def __call__(self, call: FunctionCall, mode: RuleMode) -> Any:
        """Run a call by its rule."""
        if call.kind in _LINEAR or (not self._exact and call.kind in (FunctionKind.PRODUCT, FunctionKind.JOINT)):
            return call.run()
        if call.name == _DECOMPOSED:
            return mode.run_decomposed(call)
        if call.kind is FunctionKind.JOINT and call.name not in self._joint.by_name:
            mode.refuse(call)
            return call.run()
        if self._recording:
            self._recorded.append((call.name, [x.detach().clone() for x in call.inputs]))
            return call.run()
        return self._write_back(call, self._with_multiplier(call, self._pairs(call)))

    def finish(self) -> None:
        """Check that the input's forward made all calls that the baseline's made.

        Raises:
            CapabilityError: It did not.
        """
        if self._recorded:
            raise _divergence(f"only the baseline's reaches `{self._recorded[0][0]}`")

    def _pairs(self, call: FunctionCall) -> list[Pair]:
        """Return the call's inputs paired with those of the same call at the baseline."""
        name, start = self._recorded.popleft() if self._recorded else ("", [])
        if name != call.name or [x.shape for x in start] != [x.shape for x in call.inputs]:
            raise _divergence(f"`{call.name}` follows on the input, `{name or 'the end'}` on the baseline")
        return [Pair(x, y) for x, y in zip(call.inputs, start, strict=True)]

    def _with_multiplier(self, call: FunctionCall, pairs: list[Pair]) -> Any:
        """Return the call's result with its multiplier in place of its gradient."""
        if call.kind is FunctionKind.ELEMENTWISE:
            return rescale(lambda x: call.run_on([x]), pairs[0], self._eps).value
        if call.kind is FunctionKind.MAX_POOL:
            return self._pooled(call, pairs[0])
        if call.is_quotient:
            return times_reciprocal(pairs[0], rescale(torch.reciprocal, pairs[1], 0.0)).value
        if call.kind is FunctionKind.PRODUCT:
            return product(lambda *xs: call.run_on(xs), *pairs).value
        args, kwargs = call.bind(pairs)
        with torch.no_grad():
            value = call.run_on([x.value for x in pairs])
        return with_gradient_of(value, self._joint.by_name[call.name](*args, **kwargs).value)

    def _pooled(self, call: FunctionCall, x: Pair) -> Any:
        pool = getattr(F, f"{call.name}_with_indices")
        rest = {k: v for k, v in call.kwargs.items() if k != "return_indices"}

        def pool_with_indices(value: Tensor) -> tuple[Tensor, Tensor]:
            args, kwargs = FunctionCall(call.func, call.args, rest).bind([value])
            maxima, positions = pool(*args, **kwargs)
            return maxima, positions

        with torch.no_grad():
            found = call.run_on([x.value])
        maxima = max_pool(x, pool_with_indices, int(call.name[-2]), self._eps).value
        return maxima if isinstance(found, Tensor) else (maxima, *found[1:])

    @staticmethod
    def _write_back(call: FunctionCall, result: Any) -> Any:
        """Return the result; if the function runs in place, write it into its first argument."""
        return call.inputs[0].copy_(result) if call.in_place else result


def _divergence(how: str) -> CapabilityError:
    return CapabilityError(
        "DeepLIFT compares the forward of the input with that of the baseline, but the model takes different execution "
        f"paths: {how}. Use a measure without a baseline: gradient_x_activation_abs or gradcam_abs."
    )
