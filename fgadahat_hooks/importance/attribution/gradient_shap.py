"""Gradient SHAP: expected gradients at random points of the path of inputs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from fgadahat_hooks.importance.attribution.base import AttributionMeasure
from fgadahat_hooks.importance.attribution.params import Params
from fgadahat_hooks.importance.attribution.scene import Baseline, Scene, Values
from fgadahat_hooks.importance.base import register_measure


@register_measure("gradientshap_abs")
class GradientshapAbs(AttributionMeasure):
    """`I_i = <mean_k dF_y/dz_i(x' + u_k (x - x')) (z_i(x) - z_i(x'))>`, `u_k` uniform in [0, 1] (Lundberg & Lee 2017).

    Choose it for an estimate of integrated gradients at a tenth of the cost.

    Args:
        n_samples: Random points a sample.
        baselines: `x'`, a number or a tensor like the inputs or like one sample.
        seed: Seed of the points' own generator; the training's random stream is not touched.
        attribute_to: `gate` or `layer`.
    """

    cost: ClassVar[str] = "n_samples + 2 forwards, n_samples backwards"

    def __init__(self, *, n_samples: int = 5, baselines: Baseline = 0.0, seed: int = 0, **params: Any) -> None:
        """Check the parameters."""
        super().__init__(**params)
        with Params(self.name) as check:
            self.n_samples = check.count("n_samples", n_samples)
            self.baselines = check.baseline("baselines", baselines)
            self.seed = check.count("seed", seed, 0)
        self._generator = torch.Generator().manual_seed(seed)

    def draw(self, size: int) -> Tensor:
        """Return the next `u`, one a sample, `(size,)` in double precision."""
        return torch.rand(size, generator=self._generator, dtype=torch.float64)

    def compute(self, scene: Scene) -> dict[str, Tensor]:
        """Return the measure of every layer, `(units,)`."""
        slopes: Values = {}
        for _ in range(self.n_samples):
            for name, parts in scene.run(self.draw(scene.batch.size), self.baselines).gradients().items():
                slopes[name] = [a + b for a, b in zip(slopes[name], parts, strict=True)] if name in slopes else parts
        end, start = (scene.run(share, self.baselines, grad=False).values for share in (1.0, 0.0))
        return scene.mean_abs(
            {
                name: [g / self.n_samples * (a - b) for g, a, b in zip(parts, end[name], start[name], strict=True)]
                for name, parts in slopes.items()
            }
        )

    def check(self, scene: Scene) -> None:
        """Refuse a model whose inputs form no path."""
        scene.check_path()
        super().check(scene)

    def state_dict(self) -> dict[str, Any]:
        """Return where the generator stands."""
        return {"generator": self._generator.get_state()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Let the generator go on from there."""
        self._generator.set_state(state["generator"])
