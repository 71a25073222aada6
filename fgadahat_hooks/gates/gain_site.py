"""Gains and biases of units inside a layer's own parameters, where masks are hard.

In training they act on the layer's output, which is small. In evaluation they are multiplied into the weight and the
bias while the layer runs: an export does the same once, so that its outputs have the same bits.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from fgadahat_hooks.gates.gate import Gate
from fgadahat_hooks.gates.sites import FoldSite, fold_enter, fold_leave, site_attribute
from fgadahat_hooks.hooks import HookSet
from fgadahat_hooks.layers import LayerType


def fold_gains(layer: nn.Module, kind: LayerType, gain: Tensor, bias: Tensor) -> dict[str, Tensor]:
    """Return a layer's weight and bias with gains and biases `(units,)` of its units multiplied in."""
    weight, own = layer._parameters["weight"], layer._parameters.get("bias")
    assert weight is not None  # noqa: S101  # a layer without one is not folded
    rows = kind.unit_view(layer, gain.to(weight))
    shift = bias.to(weight) if own is None else own * gain.to(own) + bias.to(own)
    return {"weight": weight * rows, "bias": shift}


class GainSite(FoldSite):
    """Replaces a layer's weight and bias while it runs, where its gate says so."""

    def __init__(self, layer: nn.Module, gate: Gate, kind: LayerType) -> None:
        """Take a layer whose forward is that of its type, and its gate."""
        super().__init__([(layer, gate)])
        self._layer, self._gate, self._kind = layer, gate, kind
        gate.folds_gains = True

    def enter(self) -> None:
        """Shadow weight and bias; compiled code, whose bits are its own, has gains on the output in evaluation too."""
        if torch.compiler.is_compiling():
            return
        gate = self._gate
        self._marks.append(len(self._hidden))
        if gate.gain is not None and gate.bias is not None and gate.gains_are_folded():
            for name, value in fold_gains(self._layer, self._kind, gate.gain, gate.bias).items():
                self.shadow(self._layer, name, value)

    def leave(self, host: nn.Module, output: Any) -> Any:
        """Restore what was there before the matching `enter`."""
        return None if torch.compiler.is_compiling() else super().leave(host, output)


def install_gains(hooks: HookSet, layer: nn.Module, gate: Gate, kind: LayerType) -> None:
    """Multiply gains into a layer's parameters in evaluation, while the layer runs."""
    site_attribute(hooks, layer, GainSite(layer, gate, kind))
    hooks.forward_pre(layer, fold_enter)
    hooks.forward(layer, fold_leave, always=True, first=True)
