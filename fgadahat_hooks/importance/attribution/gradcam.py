"""Grad-CAM, unit by unit."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from fgadahat_hooks.importance.attribution.attribution_batch import AttributionBatch
from fgadahat_hooks.importance.attribution.base import AttributionMeasure
from fgadahat_hooks.importance.attribution.layer_outputs import Site
from fgadahat_hooks.importance.base import register_measure


@register_measure("gradcam_abs")
class GradcamAbs(AttributionMeasure):
    """`I_i = <GAP(dF_y/dz)_i z_i>` without ReLU and without the sum over units, which would be constant.

    `GAP` is the mean over a sample's positions: pixels of a map, tokens of a sequence.

    Choose it for convolutions and tokens, when the gradient should be that of a whole map; it equals gradient times
    activation where there are no positions.
    """

    cost: ClassVar[str] = "1 forward, 1 backward"

    def compute(self, batch: AttributionBatch) -> dict[str, Tensor]:
        """Return the measure of every layer, `(units,)`."""
        run = batch.run()
        gradients = run.gradients()
        return batch.mean_abs(
            {
                name: [z.detach() * _pooled(g, site) for z, g in zip(run.values[name], gradients[name], strict=True)]
                for name, site in batch.sites.items()
            }
        )


def _pooled(gradient: Tensor, site: Site) -> Tensor:
    """Return the mean over all axes except those of samples (the first) and units."""
    kept = {0, site.axis % gradient.dim()}
    positions = [d for d in range(gradient.dim()) if d not in kept]
    return gradient.mean(positions, keepdim=True) if positions else gradient
