"""Measures of weights or gradients times activation; all factors belong to the same step, before the update."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from fgadahat_hooks.importance.base import LayerView, Measure, register_measure
from fgadahat_hooks.importance.terms import activation, gradient_square, input_sum, output_sum, weight_abs
from fgadahat_hooks.importance.weight import RECIPROCAL_EPSILON


@register_measure("input_weight_abs_sum_x_activation_abs")
class InputWeightAbsSumXActivationAbs(Measure):
    """`I_i = S_in(|W|)_i <h>_i` (ICU of FG-AdaHAT); not the utility of continual backprop, which reads outputs.

    Choose it first: it needs no extra pass, is stable from batch to batch, and is the authors' own setting.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"weight", "activation"})

    def compute(self, view: LayerView) -> Tensor:
        """Return the measure, `(units,)`."""
        return input_sum(view, weight_abs) * activation(view)


@register_measure("output_weight_abs_sum_x_activation_abs")
class OutputWeightAbsSumXActivationAbs(Measure):
    """`I_i = S_out(|W_next|)_i <h>_i` (CU of FG-AdaHAT), continual backprop's contribution without its running mean.

    Choose it when a unit's contribution to later layers is what matters.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"activation", "consumers"})

    def compute(self, view: LayerView) -> Tensor:
        """Return the measure, `(units,)`."""
        return output_sum(view, weight_abs) * activation(view)


@register_measure("input_weight_gradient_square_sum_x_activation_abs")
class InputWeightGradientSquareSumXActivationAbs(Measure):
    """`I_i = S_in(G^2)_i <h>_i` (AFI of FG-AdaHAT).

    Choose it when both activity and the loss's sensitivity should count. It protects units with small values little.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"gradient", "activation"})
    forgot: ClassVar[float] = 3.3

    def compute(self, view: LayerView) -> Tensor:
        """Return the measure, `(units,)`."""
        return input_sum(view, gradient_square) * activation(view)


@register_measure("output_weight_gradient_square_sum_x_activation_abs")
class OutputWeightGradientSquareSumXActivationAbs(Measure):
    """`I_i = S_out(G_next^2)_i <h>_i`.

    Choose it like AFI, but for the weights that read the unit. It protects units with small values little.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"gradient", "activation", "consumers"})
    forgot: ClassVar[float] = 3.6

    def compute(self, view: LayerView) -> Tensor:
        """Return the measure, `(units,)`."""
        return output_sum(view, gradient_square) * activation(view)


@register_measure("cbp_adaptive_contribution")
class CbpAdaptiveContribution(Measure):
    """`I_i = S_out(|W_next|)_i <h>_i / (S_in(|W|)_i + 1e-8)` (arXiv 2108.06325, Sec. 4, without mean correction).

    Choose it to compare with continual backprop; `cbp_utility` is the published form with its running means.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"weight", "activation", "consumers"})

    def compute(self, view: LayerView) -> Tensor:
        """Return the measure, `(units,)`."""
        contribution = output_sum(view, weight_abs) * activation(view)
        return contribution / (input_sum(view, weight_abs) + RECIPROCAL_EPSILON)
