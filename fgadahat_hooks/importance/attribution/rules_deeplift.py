"""What DeepLIFT does at each function: two forwards, the second with multipliers in the place of gradients."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from fgadahat_hooks.errors import CapabilityError
from fgadahat_hooks.importance.attribution.rules import Call, Kind
from fgadahat_hooks.importance.attribution.rules_joint import JointRules
from fgadahat_hooks.importance.attribution.rules_pair import Pair, instead, max_pool, product, rescale, scaled
from fgadahat_hooks.importance.attribution.rules_watch import Watch

Interactions = Literal["exact", "gradient"]
"""How products of activations, softmax, norms and attention are passed."""
_LINEAR = frozenset((Kind.MOVE, Kind.SCALE, Kind.SUM, Kind.WEIGHTED_SUM, Kind.FIXED_NORM))
_OPENED = "multi_head_attention_forward"


class DeepLiftRules:
    """Notes the arguments of all non-linear functions at the baseline, then gives multipliers at the input.

    Calls are told apart by their order: a module used twice, or a function, is as good as a module of its own.

    Args:
        eps: Least difference of an argument that counts as one.
        interactions: `exact` or `gradient`.
    """

    def __init__(self, eps: float, interactions: Interactions) -> None:
        """Begin with nothing noted."""
        self._eps = eps
        self._exact = interactions == "exact"
        self._joint = JointRules()
        self._noted: deque[tuple[str, list[Tensor]]] = deque()
        self._noting = False

    @contextmanager
    def noting(self) -> Iterator[None]:
        """Run the baseline's forward: its graph tells what depends on a layer, but keeps no tensors."""
        self._noted.clear()
        self._noting = True
        nothing = torch.empty(0)
        try:
            with torch.autograd.graph.saved_tensors_hooks(lambda _: nothing, lambda _: nothing):
                yield
        finally:
            self._noting = False

    def __call__(self, call: Call, watch: Watch) -> Any:
        """Run a call."""
        if call.kind in _LINEAR or (not self._exact and call.kind in (Kind.PRODUCT, Kind.JOINT)):
            return call.run()
        if call.name == _OPENED:
            return watch.inside(call)
        if call.kind is Kind.JOINT and call.name not in self._joint.of:
            watch.refuse(call)
            return call.run()
        if self._noting:
            self._noted.append((call.name, [x.detach().clone() for x in call.inputs]))
            return call.run()
        return self._written(call, self._multiplied(call, self._pairs(call)))

    def finish(self) -> None:
        """Check that the input's forward came as far as the baseline's.

        Raises:
            CapabilityError: It did not.
        """
        if self._noted:
            raise _parted(f"only the baseline's reaches `{self._noted[0][0]}`")

    def _pairs(self, call: Call) -> list[Pair]:
        name, start = self._noted.popleft() if self._noted else ("", [])
        if name != call.name or [x.shape for x in start] != [x.shape for x in call.inputs]:
            raise _parted(f"`{call.name}` follows on the input, `{name or 'the end'}` on the baseline")
        return [Pair(x, y) for x, y in zip(call.inputs, start, strict=True)]

    def _multiplied(self, call: Call, pairs: list[Pair]) -> Any:
        if call.kind is Kind.CURVE:
            return rescale(lambda x: call.on([x]), pairs[0], self._eps).now
        if call.kind is Kind.MAX_POOL:
            return self._pooled(call, pairs[0])
        if call.is_quotient:
            return scaled(pairs[0], rescale(torch.reciprocal, pairs[1], 0.0)).now
        if call.kind is Kind.PRODUCT:
            return product(lambda *xs: call.on(xs), *pairs).now
        args, kwargs = call.bind(pairs)
        with torch.no_grad():
            value = call.on([x.now for x in pairs])
        return instead(value, self._joint.of[call.name](*args, **kwargs).now)

    def _pooled(self, call: Call, x: Pair) -> Any:
        pool = getattr(F, f"{call.name}_with_indices")
        rest = {k: v for k, v in call.kwargs.items() if k != "return_indices"}

        def at(value: Tensor) -> tuple[Tensor, Tensor]:
            args, kwargs = Call(call.func, call.args, rest).bind([value])
            maxima, places = pool(*args, **kwargs)
            return maxima, places

        with torch.no_grad():
            found = call.on([x.now])
        maxima = max_pool(x, at, int(call.name[-2]), self._eps).now
        return maxima if isinstance(found, Tensor) else (maxima, *found[1:])

    @staticmethod
    def _written(call: Call, result: Any) -> Any:
        """Put the result where a function in place has it."""
        return call.inputs[0].copy_(result) if call.in_place else result


def _parted(how: str) -> CapabilityError:
    return CapabilityError(
        f"DeepLIFT compares the forward of the input with that of the baseline, but the model takes different ways: "
        f"{how}. Use a measure without a baseline: gradient_x_activation_abs or gradcam_abs."
    )
