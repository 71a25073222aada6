"""Integrated gradients between a layer's values on a baseline and on the inputs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor

from fgadahat_hooks.errors import CapabilityError
from fgadahat_hooks.importance.attribution.base import AttributionMeasure
from fgadahat_hooks.importance.attribution.params import Params
from fgadahat_hooks.importance.attribution.path import METHODS, Method, quadrature
from fgadahat_hooks.importance.attribution.replay import Rerun, Reruns
from fgadahat_hooks.importance.attribution.replay_check import WholeLayers
from fgadahat_hooks.importance.attribution.scene import Baseline, Scene, Values
from fgadahat_hooks.importance.attribution.shapes import precise
from fgadahat_hooks.importance.base import register_measure


@register_measure("integrated_gradients_abs")
class IntegratedGradientsAbs(AttributionMeasure):
    """`I_i = <(z_i(x) - z_i(x')) int_0^1 dF_y/dz_i(z(x') + a (z(x) - z(x'))) da>` (Sundararajan et al. 2017).

    The path is straight in the space of the layer's values, so each layer has one of its own; all calls of a layer
    move along it together. Only the operations after the layer run again, for many points of the path at once.

    Choose it when the units' shares should add up to the change of the score; seldom, or on few samples.

    Args:
        n_steps: Points of the integral.
        baselines: `x'`, a number or a tensor like the inputs or like one sample.
        method: Rule of the integral.
        memory_mb: Megabytes that the points run at once may take; one point runs in any case.
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
        with Params(self.name) as check:
            self.n_steps = check.count("n_steps", n_steps, 1 if method == "gausslegendre" else 2)
            self.baselines = check.baseline("baselines", baselines)
            self.method: Method = check.choice("method", method, METHODS)
            self.memory = check.number("memory_mb", memory_mb, 0.0) * 2**20
        self._whole = WholeLayers()

    def check(self, scene: Scene) -> None:
        """Refuse a model whose inputs form no path."""
        scene.check_path()
        super().check(scene)

    def compute(self, scene: Scene) -> dict[str, Tensor]:
        """Return the measure of every layer, `(units,)`."""
        end = scene.run(grad=False).values
        start = scene.run(0.0, self.baselines, grad=False).values
        reruns = Reruns(scene, grad=True, whole=self._whole.of(scene))
        found: Values = {}
        for name in scene.sites:
            _check_calls(name, start[name], end[name])
            moves = [(a, b - a) for a, b in zip(start.pop(name), end.pop(name), strict=True)]
            if moves:
                slopes = reruns.on(name, self._integral(moves))
                found[name] = [move * slope for (_, move), slope in zip(moves, slopes, strict=True)]
        return scene.mean_abs(found)

    def _integral(self, moves: list[tuple[Tensor, Tensor]]) -> Callable[[Rerun], list[Tensor]]:
        """Return what integrates the gradient by the values of each call, as many points at once as may be."""

        def work(rerun: Rerun) -> list[Tensor]:
            points, weights = (
                torch.tensor(part, dtype=torch.float64) for part in quadrature(self.method, self.n_steps)
            )
            weights = weights.float()  # as captum rounds them, so that numbers agree with its to the last digits
            total = [precise(torch.zeros_like(start)) for start, _ in moves]
            count = rerun.at_once(self.memory, grad=True)
            for some, shares in zip(points.split(count), weights.split(count), strict=True):
                for sum_, slopes in zip(total, _slopes(rerun, moves, some), strict=True):
                    slopes = precise(slopes)
                    sum_.add_(torch.tensordot(shares.to(slopes), slopes, 1))
            return total

        return work


def _slopes(rerun: Rerun, moves: list[tuple[Tensor, Tensor]], points: Tensor) -> list[Tensor]:
    """Return the gradient of the summed scores by the values of each call, at some points, `(points, *value)`."""
    rows = []
    for start, move in moves:
        shares = points.to(start).view(-1, *[1] * start.dim())
        rows.append((start + shares * move).requires_grad_())
    with torch.enable_grad():
        scores = rerun.scores(lambda call, _, row: row[call], rows)
        if not scores.requires_grad:
            return [torch.zeros_like(row) for row in rows]
        found = torch.autograd.grad(scores.sum(), rows, allow_unused=True)
    return [torch.zeros_like(row) if slope is None else slope for row, slope in zip(rows, found, strict=True)]


def _check_calls(layer: str, start: list[Tensor], end: list[Tensor]) -> None:
    if [value.shape for value in start] != [value.shape for value in end]:
        raise CapabilityError(
            f"Integrated gradients need layer '{layer}' to put out the same shapes on the baseline as on the inputs, "
            "but its calls depend on the numbers that the model is given. Choose another measure or other `baselines`."
        )
