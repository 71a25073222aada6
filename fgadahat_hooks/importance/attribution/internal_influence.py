"""Internal influence: the mean gradient along the path of inputs."""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor

from fgadahat_hooks.importance.attribution.attribution_batch import AttributionBatch, Baseline, Values, add_values
from fgadahat_hooks.importance.attribution.base import AttributionMeasure
from fgadahat_hooks.importance.attribution.path import METHODS, Method, quadrature
from fgadahat_hooks.importance.base import register_measure
from fgadahat_hooks.importance.params import ParamChecker


@register_measure("internal_influence_abs")
class InternalInfluenceAbs(AttributionMeasure):
    """`I_i = <int_0^1 dF_y/dz_i(x' + a (x - x')) da>` (Leino et al. 2018); not multiplied by anything.

    Choose it when gradients at the input saturate: it averages them along the whole path from the baseline.

    Args:
        n_steps: Points of the integral.
        baselines: `x'`, a number or a tensor like the inputs or like one sample.
        method: Quadrature rule of the integral.
        attribute_to: `gate` or `layer`.
    """

    cost: ClassVar[str] = "n_steps forwards and backwards"

    def __init__(
        self, *, n_steps: int = 5, baselines: Baseline = 0.0, method: Method = "gausslegendre", **params: Any
    ) -> None:
        """Check the parameters."""
        super().__init__(**params)
        with ParamChecker(self.name) as check:
            self.n_steps = check.count("n_steps", n_steps, 1 if method == "gausslegendre" else 2)
            self.baselines = check.baseline("baselines", baselines)
            self.method: Method = check.choice("method", method, METHODS)

    def compute(self, batch: AttributionBatch) -> dict[str, Tensor]:
        """Return the measure of every layer, `(units,)`."""
        total: Values = {}
        for point, weight in zip(*quadrature(self.method, self.n_steps), strict=True):
            gradients = batch.run(point, self.baselines).gradients()
            add_values(total, {name: [weight * g for g in parts] for name, parts in gradients.items()})
        return batch.mean_abs(total)

    def check(self, batch: AttributionBatch) -> None:
        """Refuse a model whose inputs form no path."""
        batch.check_path()
        super().check(batch)
