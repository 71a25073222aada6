"""The measure of activations alone."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from fgadahat_hooks.importance.base import LayerView, Measure, register_measure
from fgadahat_hooks.importance.terms import activation


@register_measure("activation_abs")
class ActivationAbs(Measure):
    """`I_i = <h>_i`, the mean over batch and positions of `|h_i|` after norm, gate and activation function.

    Choose it when the units that fire are the ones that matter, as after ReLU; it ignores how later layers read them.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"activation"})

    def compute(self, view: LayerView) -> Tensor:
        """Return the measure, `(units,)`."""
        return activation(view)
