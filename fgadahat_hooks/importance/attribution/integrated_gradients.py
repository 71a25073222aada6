"""Integrated gradients between a layer's values on a baseline and on the inputs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor

from fgadahat_hooks.errors import CapabilityError
from fgadahat_hooks.importance.attribution.attribution_batch import AttributionBatch, Baseline, Values
from fgadahat_hooks.importance.attribution.base import AttributionMeasure
from fgadahat_hooks.importance.attribution.gradients import summed_gradients
from fgadahat_hooks.importance.attribution.path import METHODS, Method, quadrature
from fgadahat_hooks.importance.attribution.replay import LayerReruns, Rerun
from fgadahat_hooks.importance.attribution.replay_check import FullForwardLayers
from fgadahat_hooks.importance.attribution.shapes import at_least_float32
from fgadahat_hooks.importance.base import register_measure
from fgadahat_hooks.importance.params import ParamChecker


@register_measure("integrated_gradients_abs")
class IntegratedGradientsAbs(AttributionMeasure):
    """`I_i = <(z_i(x) - z_i(x')) int_0^1 dF_y/dz_i(z(x') + a (z(x) - z(x'))) da>` (Sundararajan et al. 2017).

    The path is straight in the space of the layer's outputs, so each layer has its own; all calls of a layer move along
    it together. Only the operations after the layer are rerun, for many points of the path at once.

    Choose it when the units' shares should sum to the change of the score; seldom, or on few samples.

    Args:
        n_steps: Points of the integral.
        baselines: `x'`, a number or a tensor like the inputs or like one sample.
        method: Quadrature rule of the integral.
        memory_mb: Megabytes that the points run at once may take; at least one point is run.
        attribute_to: `gate` or `layer`.
    """

    cost: ClassVar[str] = "3 forwards, and for each layer n_steps forwards and backwards of what comes after it"

    def __init__(
        self,
        *,
        n_steps: int = 50,
        baselines: Baseline = 0.0,
        method: Method = "gausslegendre",
        memory_mb: float = 4.0,
        **params: Any,
    ) -> None:
        """Check the parameters."""
        super().__init__(**params)
        with ParamChecker(self.name) as check:
            self.n_steps = check.count("n_steps", n_steps, 1 if method == "gausslegendre" else 2)
            self.baselines = check.baseline("baselines", baselines)
            self.method: Method = check.choice("method", method, METHODS)
            self.memory = check.number("memory_mb", memory_mb, 0.0) * 2**20
        self._full_forward = FullForwardLayers()

    def check(self, batch: AttributionBatch) -> None:
        """Refuse a model whose inputs form no path."""
        batch.check_path()
        super().check(batch)

    def compute(self, batch: AttributionBatch) -> dict[str, Tensor]:
        """Return the measure of every layer, `(units,)`."""
        end = batch.run(grad=False).values
        start = batch.run(0.0, self.baselines, grad=False).values
        reruns = LayerReruns(batch, grad=True, full_forward=self._full_forward.of(batch))
        found: Values = {}
        for name in batch.sites:
            _refuse_unless_same_shapes(name, start[name], end[name])
            moves = [(a, b - a) for a, b in zip(start.pop(name), end.pop(name), strict=True)]
            if moves:
                integrals = reruns.run(name, self._integral(moves))
                found[name] = [move * integral for (_, move), integral in zip(moves, integrals, strict=True)]
        return batch.mean_abs(found)

    def _integral(self, moves: list[tuple[Tensor, Tensor]]) -> Callable[[Rerun], list[Tensor]]:
        """Return a function of a rerun that integrates the gradient by each call's output along the path.

        Args:
            moves: For each call the path's start, and the difference from it to the end.
        """

        def integrate(rerun: Rerun) -> list[Tensor]:
            points, weights = (
                torch.tensor(part, dtype=torch.float64) for part in quadrature(self.method, self.n_steps)
            )
            weights = weights.float()  # rounded as in captum, so that results agree with it to the last digits
            total = [at_least_float32(torch.zeros_like(start)) for start, _ in moves]
            count = rerun.rows_within(self.memory, grad=True)
            for some, shares in zip(points.split(count), weights.split(count), strict=True):
                for sum_, gradients in zip(total, _gradients(rerun, moves, some), strict=True):
                    gradients = at_least_float32(gradients)
                    sum_.add_(torch.tensordot(shares.to(gradients), gradients, 1))
            return total

        return integrate


def _gradients(rerun: Rerun, moves: list[tuple[Tensor, Tensor]], points: Tensor) -> list[Tensor]:
    """Return the gradient of the summed scores by each call's output, at points of the path, `(points, *value)`."""
    rows = []
    for start, move in moves:
        shares = points.to(start).view(-1, *[1] * start.dim())
        rows.append((start + shares * move).requires_grad_())
    with torch.enable_grad():
        return summed_gradients(rerun.scores(lambda call, _, row: row[call], rows), rows)


def _refuse_unless_same_shapes(layer: str, start: list[Tensor], end: list[Tensor]) -> None:
    if [value.shape for value in start] != [value.shape for value in end]:
        raise CapabilityError(
            f"Integrated gradients need layer '{layer}' to put out the same shapes on the baseline as on the inputs, "
            "but its calls depend on the numbers that the model is given. Choose another measure or other `baselines`."
        )
