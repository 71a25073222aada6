"""Gradient times activation."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from fgadahat_hooks.importance.attribution.attribution_batch import AttributionBatch
from fgadahat_hooks.importance.attribution.base import AttributionMeasure
from fgadahat_hooks.importance.base import register_measure


@register_measure("gradient_x_activation_abs")
class GradientXActivationAbs(AttributionMeasure):
    """`I_i = <z_i dF_y/dz_i>`, `F_y` the logit of the true label.

    Choose it first among the attributions: one more pass shows which units the class score depends on.
    """

    cost: ClassVar[str] = "1 forward, 1 backward"

    def compute(self, batch: AttributionBatch) -> dict[str, Tensor]:
        """Return the measure of every layer, `(units,)`."""
        run = batch.run()
        gradients = run.gradients()
        return batch.mean_abs(
            {n: [z.detach() * g for z, g in zip(run.values[n], parts, strict=True)] for n, parts in gradients.items()}
        )
