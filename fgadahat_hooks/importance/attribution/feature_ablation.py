"""Feature ablation: the change of the score when a unit is set to a baseline."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from fgadahat_hooks.errors import BadCallError
from fgadahat_hooks.importance.attribution.attribution_batch import AttributionBatch
from fgadahat_hooks.importance.attribution.base import AttributionMeasure
from fgadahat_hooks.importance.attribution.layer_outputs import Site
from fgadahat_hooks.importance.attribution.replay import Alter, LayerReruns, Rerun
from fgadahat_hooks.importance.attribution.replay_check import FullForwardLayers
from fgadahat_hooks.importance.attribution.shapes import at_least_float32, broadcast_along
from fgadahat_hooks.importance.base import register_measure
from fgadahat_hooks.importance.params import ParamChecker

LayerBaseline = float | Tensor | Mapping[str, float | Tensor]
"""What a unit is set to: a number, or by layer name a number or one number a unit, `(units,)`."""


@register_measure("feature_ablation_abs")
class FeatureAblationAbs(AttributionMeasure):
    """`I_i = <F_y - F_y(z_i := baseline)>`, the unit ablated in all positions and calls, the mean over samples.

    Only the operations after the layer are rerun, for many units at once. A unit that equals its baseline everywhere
    (one that is masked off) costs nothing. Scores of reruns differ from those of full forwards by rounding.

    Choose it for the effect of actually removing a unit, rather than a gradient; seldom, or on few samples.

    Args:
        baselines: What a unit is set to: a number, or by layer name a number or a tensor `(units,)`; 0 for layers that
            are not named.
        memory_mb: Megabytes that the copies run at once may take; at least one copy is run.
        perturbations_per_eval: Largest number of units at once.
        attribute_to: `gate` or `layer`.
    """

    cost: ClassVar[str] = "2 forwards, and for each unit a forward of what comes after its layer"

    def __init__(
        self,
        *,
        baselines: LayerBaseline = 0.0,
        memory_mb: float = 4.0,
        perturbations_per_eval: int | None = None,
        **params: Any,
    ) -> None:
        """Check the parameters."""
        super().__init__(**params)
        with ParamChecker(self.name) as check:
            named = baselines if isinstance(baselines, Mapping) else {"": baselines}
            self.baselines = {layer: check.baseline("baselines", value) for layer, value in named.items()}
            self.memory = check.number("memory_mb", memory_mb, 0.0) * 2**20
            limit = perturbations_per_eval
            self.max_units = None if limit is None else check.count("perturbations_per_eval", limit)
        self._full_forward = FullForwardLayers()

    def check(self, batch: AttributionBatch) -> None:
        """Refuse baselines that do not fit the layers."""
        super().check(batch)
        self._baselines_of(batch)

    def compute(self, batch: AttributionBatch) -> dict[str, Tensor]:
        """Return the measure of every layer, `(units,)`."""
        baselines = self._baselines_of(batch)
        run = batch.run(grad=False)
        plain = at_least_float32(run.scores)
        ablated = {
            n: _units_off_baseline(s, run.values[n], baselines[n]).to(plain.device) for n, s in batch.sites.items()
        }
        del run  # frees the outputs of all layers
        found = {n: plain.new_zeros(s.units) for n, s in batch.sites.items()}
        with torch.no_grad():
            reruns = LayerReruns(batch, grad=False, full_forward=self._full_forward.of(batch))
            for name, units in ablated.items():
                if len(units):
                    ablate = self._ablation(batch.sites[name], baselines[name], units, plain)
                    found[name][units] = reruns.run(name, ablate)
        return found

    def _ablation(
        self, site: Site, baseline: float | Tensor, units: Tensor, plain: Tensor
    ) -> Callable[[Rerun], Tensor]:
        """Return a function of a rerun that ablates units of a layer and returns their importance, `(ablated,)`."""

        def alter(_: int, value: Tensor, row: Tensor) -> Tensor:
            fill = broadcast_along(baseline.to(value), value, site.axis) if isinstance(baseline, Tensor) else baseline
            return torch.where(broadcast_along(row, value, site.axis), fill, value)

        def ablate(rerun: Rerun) -> Tensor:
            count = min(rerun.rows_within(self.memory, grad=False), self.max_units or site.units + 1)
            parts = []
            for some in units.split(max(1, count - 1)):
                rows = some[:, None] == torch.arange(site.units, device=some.device)
                parts.append(_effect(rerun, alter, rows, None if count > 1 else plain))
            return torch.cat(parts)

        return ablate

    def _baselines_of(self, batch: AttributionBatch) -> dict[str, float | Tensor]:
        """Return each layer's baseline.

        Raises:
            BadCallError: A named layer does not exist, or a tensor does not have one number a unit.
        """
        named = dict(self.baselines)
        default = named.pop("", 0.0)
        given = {name: named.pop(name, default) for name in batch.sites}
        wrong = [f"no layer '{name}' is attributed to" for name in named]
        for name, site in batch.sites.items():
            shape = tuple(getattr(given[name], "shape", ()))
            if shape not in ((), (site.units,)):
                wrong.append(f"layer '{name}' has {site.units} units, but got shape {shape}")
        if wrong:
            raise BadCallError(
                f"Expected `baselines` of '{self.name}' to fit the layers, but " + "; ".join(wrong) + "."
            )
        return given


def _effect(rerun: Rerun, alter: Alter, rows: Tensor, plain: Tensor | None) -> Tensor:
    """Return the mean over samples of `|F_y - F_y(row)|` for each row.

    With several rows at once, a row with nothing ablated runs along with them in place of `plain`: it is rounded like
    the others, so that a unit without effect gets exactly 0 rather than the rounding difference of two kernels.
    """
    if plain is not None:
        return (at_least_float32(rerun.scores(alter, rows)) - plain).abs().mean(1)
    scores = at_least_float32(rerun.scores(alter, torch.cat([torch.zeros_like(rows[:1]), rows])))
    return (scores[1:] - scores[0]).abs().mean(1)


def _units_off_baseline(site: Site, values: Sequence[Tensor], baseline: float | Tensor) -> Tensor:
    """Return the numbers of the units that are not at their baseline everywhere."""
    differs = torch.zeros(site.units, dtype=torch.bool)
    for value in values:
        level = broadcast_along(baseline.to(value), value, site.axis) if isinstance(baseline, Tensor) else baseline
        differs = differs.to(value.device) | (value != level).movedim(site.axis, 0).reshape(site.units, -1).any(1)
    return differs.nonzero()[:, 0]
