"""Conductance: the part of the score's change along the path of inputs that flows through a unit."""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor

from fgadahat_hooks.importance.attribution.attribution_batch import AttributionBatch, Baseline, ForwardResult, Values
from fgadahat_hooks.importance.attribution.base import AttributionMeasure
from fgadahat_hooks.importance.attribution.path import METHODS, Method, quadrature
from fgadahat_hooks.importance.base import register_measure
from fgadahat_hooks.importance.params import ParamChecker


@register_measure("conductance_abs")
class ConductanceAbs(AttributionMeasure):
    """`I_i = <sum_k dF_y/dz_i(x_k) (z_i(x_{k+1}) - z_i(x_k))>` along the inputs' path (Dhamdhere et al. 2018).

    The path's points are the `n_steps + 1` points of a quadrature rule, as in captum.

    Choose it for the most faithful measure of what flows through a unit, seldom (`every_n_steps`) or on few samples.

    Args:
        n_steps: Steps of the path.
        baselines: Where the path begins, a number or a tensor like the inputs or like one sample.
        method: Quadrature rule.
        attribute_to: `gate` or `layer`.
    """

    cost: ClassVar[str] = "n_steps + 1 forwards, n_steps backwards"

    def __init__(
        self, *, n_steps: int = 50, baselines: Baseline = 0.0, method: Method = "gausslegendre", **params: Any
    ) -> None:
        """Check the parameters."""
        super().__init__(**params)
        with ParamChecker(self.name) as check:
            self.n_steps = check.count("n_steps", n_steps)
            self.baselines = check.baseline("baselines", baselines)
            self.method: Method = check.choice("method", method, METHODS)

    def compute(self, batch: AttributionBatch) -> dict[str, Tensor]:
        """Return the measure of every layer, `(units,)`."""
        points, _ = quadrature(self.method, self.n_steps + 1)
        total: Values = {}
        before = batch.run(points[0], self.baselines)
        for number, point in enumerate(points[1:], start=1):
            here = batch.run(point, self.baselines, grad=number < self.n_steps)
            _add_step(total, before, here)
            before = here
        return batch.mean_abs(total)

    def check(self, batch: AttributionBatch) -> None:
        """Refuse a model whose inputs form no path."""
        batch.check_path()
        super().check(batch)


def _add_step(total: Values, before: ForwardResult, here: ForwardResult) -> None:
    """Add gradient times change of every value, element by element."""
    for name, gradients in before.gradients().items():
        calls = zip(gradients, here.values[name], before.values[name], strict=True)
        step = [gradient * (end.detach() - start.detach()) for gradient, end, start in calls]
        total[name] = [t.add_(s) for t, s in zip(total[name], step, strict=True)] if name in total else step
