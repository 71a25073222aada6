"""Internal influence: the gradient's mean over the path of inputs."""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor

from fgadahat_hooks.importance.attribution.base import AttributionMeasure
from fgadahat_hooks.importance.attribution.params import Params
from fgadahat_hooks.importance.attribution.path import METHODS, Method, quadrature
from fgadahat_hooks.importance.attribution.scene import Baseline, Scene, Values
from fgadahat_hooks.importance.base import register_measure


@register_measure("internal_influence_abs")
class InternalInfluenceAbs(AttributionMeasure):
    """`I_i = <int_0^1 dF_y/dz_i(x' + a (x - x')) da>` (Leino et al. 2018); not multiplied by anything.

    Choose it when slopes at the input alone saturate: it looks along the whole way from the baseline.

    Args:
        n_steps: Points of the integral.
        baselines: `x'`, a number or a tensor like the inputs or like one sample.
        method: Rule of the integral.
        attribute_to: `gate` or `layer`.
    """

    cost: ClassVar[str] = "n_steps forwards and backwards"

    def __init__(
        self, *, n_steps: int = 5, baselines: Baseline = 0.0, method: Method = "gausslegendre", **params: Any
    ) -> None:
        """Check the parameters."""
        super().__init__(**params)
        with Params(self.name) as check:
            self.n_steps = check.count("n_steps", n_steps, 1 if method == "gausslegendre" else 2)
            self.baselines = check.baseline("baselines", baselines)
            self.method: Method = check.choice("method", method, METHODS)

    def compute(self, scene: Scene) -> dict[str, Tensor]:
        """Return the measure of every layer, `(units,)`."""
        total: Values = {}
        for point, weight in zip(*quadrature(self.method, self.n_steps), strict=True):
            slopes = scene.run(point, self.baselines).gradients()
            for name, parts in slopes.items():
                scaled = [weight * g for g in parts]
                total[name] = [t + s for t, s in zip(total[name], scaled, strict=True)] if name in total else scaled
        return scene.mean_abs(total)

    def check(self, scene: Scene) -> None:
        """Refuse a model whose inputs form no path."""
        scene.check_path()
        super().check(scene)
