"""Grad-CAM, channel by channel."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from fgadahat_hooks.importance.attribution.base import AttributionMeasure
from fgadahat_hooks.importance.attribution.capture import Site
from fgadahat_hooks.importance.attribution.scene import Scene
from fgadahat_hooks.importance.base import register_measure


@register_measure("gradcam_abs")
class GradcamAbs(AttributionMeasure):
    """`I_i = <GAP(dF_y/dz)_i z_i>` without ReLU and without the sum over units, which would be constant.

    `GAP` is the mean over a sample's positions: pixels of a map, tokens of a sequence.

    Choose it for convolutions and tokens, when the slope should be that of a whole map; equal to gradient times
    activation where there are no positions.
    """

    cost: ClassVar[str] = "1 forward, 1 backward"

    def compute(self, scene: Scene) -> dict[str, Tensor]:
        """Return the measure of every layer, `(units,)`."""
        run = scene.run()
        slopes = run.gradients()
        return scene.mean_abs(
            {
                name: [z.detach() * _pooled(g, site) for z, g in zip(run.values[name], slopes[name], strict=True)]
                for name, site in scene.sites.items()
            }
        )


def _pooled(gradient: Tensor, site: Site) -> Tensor:
    """Return the mean over all axes but the first, which counts samples, and the one that counts units."""
    kept = {0, site.axis % gradient.dim()}
    positions = [d for d in range(gradient.dim()) if d not in kept]
    return gradient.mean(positions, keepdim=True) if positions else gradient
