"""Measures of weight gradients; `G` is the gradient of the batch's loss, not of single samples."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from fgadahat_hooks.importance.base import LayerView, Measure, register_measure
from fgadahat_hooks.importance.terms import gradient_abs, gradient_square, input_sum, output_sum


@register_measure("input_weight_gradient_abs_sum")
class InputWeightGradientAbsSum(Measure):
    """`I_i = S_in(|G|)_i` (IG of FG-AdaHAT).

    Choose it to protect units whose incoming weights the task's loss is still changing; noisy with small batches.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"gradient"})

    def compute(self, view: LayerView) -> Tensor:
        """Return the measure, `(units,)`."""
        return input_sum(view, gradient_abs)


@register_measure("output_weight_gradient_abs_sum")
class OutputWeightGradientAbsSum(Measure):
    """`I_i = S_out(|G_next|)_i` over all consumers (OG of FG-AdaHAT).

    Choose it to protect units whose outgoing weights the task's loss is still changing.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"gradient", "consumers"})

    def compute(self, view: LayerView) -> Tensor:
        """Return the measure, `(units,)`."""
        return output_sum(view, gradient_abs)


@register_measure("input_weight_gradient_square_sum")
class InputWeightGradientSquareSum(Measure):
    """`I_i = S_in(G^2)_i`.

    Choose it for a stronger contrast between units than the sum of absolute values gives; `input_weight_fisher_sum` is
    the Fisher information itself.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"gradient"})

    def compute(self, view: LayerView) -> Tensor:
        """Return the measure, `(units,)`."""
        return input_sum(view, gradient_square)


@register_measure("output_weight_gradient_square_sum")
class OutputWeightGradientSquareSum(Measure):
    """`I_i = S_out(G_next^2)_i` over all consumers.

    Choose it like the square sum of the input weights, but for the weights that read the unit. It protects units with
    small values little.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"gradient", "consumers"})
    forgot: ClassVar[float] = 2.8

    def compute(self, view: LayerView) -> Tensor:
        """Return the measure, `(units,)`."""
        return output_sum(view, gradient_square)
