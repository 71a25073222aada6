"""Measures of weights alone."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from fgadahat_hooks.importance.base import LayerView, Measure, register_measure
from fgadahat_hooks.importance.terms import input_sum, output_sum, weight_abs

RECIPROCAL_EPSILON = 1e-8
"""Added to a sum of weights before it divides, so that a unit without weights has a finite value."""


@register_measure("input_weight_abs_sum")
class InputWeightAbsSum(Measure):
    """`I_i = S_in(|W|)_i`, the sum of the absolute weights that feed the unit.

    Choose it as the cheapest baseline: it needs neither data nor gradients, and works for every layer.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"weight"})

    def compute(self, view: LayerView) -> Tensor:
        """Return the measure, `(units,)`."""
        return input_sum(view, weight_abs)


@register_measure("output_weight_abs_sum")
class OutputWeightAbsSum(Measure):
    """`I_i = S_out(|W_next|)_i`, the sum of the absolute weights that read the unit, over all consumers.

    Choose it when a unit matters by how strongly later layers read it and activations are not informative.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"consumers"})

    def compute(self, view: LayerView) -> Tensor:
        """Return the measure, `(units,)`."""
        return output_sum(view, weight_abs)


@register_measure("cbp_adaptation")
class CbpAdaptation(Measure):
    """`I_i = 1 / (S_in(|W|)_i + 1e-8)`, the adaptation utility of continual backprop (arXiv 2108.06325, Sec. 4).

    High for units of small weights, the opposite of what protects knowledge; and one unit almost without weights takes
    the whole range of the min-max scaling.

    Choose it only to compare with continual backprop.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"weight"})

    def compute(self, view: LayerView) -> Tensor:
        """Return the measure, `(units,)`."""
        return 1 / (input_sum(view, weight_abs) + RECIPROCAL_EPSILON)
