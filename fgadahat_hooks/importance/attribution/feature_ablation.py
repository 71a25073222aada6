"""Feature ablation: what the output loses without a unit."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from fgadahat_hooks.errors import BadCallError
from fgadahat_hooks.importance.attribution.base import AttributionMeasure
from fgadahat_hooks.importance.attribution.capture import Site
from fgadahat_hooks.importance.attribution.params import Params
from fgadahat_hooks.importance.attribution.replay import Alter, Rerun, Reruns
from fgadahat_hooks.importance.attribution.replay_check import WholeLayers
from fgadahat_hooks.importance.attribution.scene import Scene
from fgadahat_hooks.importance.attribution.shapes import along, precise
from fgadahat_hooks.importance.base import register_measure

LayerBaseline = float | Tensor | Mapping[str, float | Tensor]
"""What a unit is set to: a number, or for each layer by name a number or one number a unit, `(units,)`."""


@register_measure("feature_ablation_abs")
class FeatureAblationAbs(AttributionMeasure):
    """`I_i = <F_y - F_y(z_i := baseline)>`, the whole unit in all positions and calls, the mean over samples.

    Only the operations after the layer run again, for many units at once. A unit that equals its baseline everywhere
    (one that is masked off) costs nothing. Scores of reruns differ from those of whole forwards by rounding.

    Choose it to know what the model does without a unit, rather than what slopes say; seldom, or on few samples.

    Args:
        baselines: What a unit is set to: a number, or for layers by name a number or a tensor `(units,)`; 0 for layers
            that are not named.
        memory_mb: Megabytes that the copies run at once may take; one copy runs in any case.
        perturbations_per_eval: At most so many units at once.
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
        with Params(self.name) as check:
            named = baselines if isinstance(baselines, Mapping) else {"": baselines}
            self.baselines = {layer: check.baseline("baselines", value) for layer, value in named.items()}
            self.memory = check.number("memory_mb", memory_mb, 0.0) * 2**20
            most = perturbations_per_eval
            self.most = None if most is None else check.count("perturbations_per_eval", most)
        self._whole = WholeLayers()

    def check(self, scene: Scene) -> None:
        """Refuse baselines that do not fit the layers."""
        super().check(scene)
        self._baselines_of(scene)

    def compute(self, scene: Scene) -> dict[str, Tensor]:
        """Return the measure of every layer, `(units,)`."""
        baselines = self._baselines_of(scene)
        run = scene.run(grad=False)
        plain = precise(run.scores)
        changed = {n: _differing(s, run.values[n], baselines[n]).to(plain.device) for n, s in scene.sites.items()}
        del run  # and with it the values of all layers
        found = {n: plain.new_zeros(s.units) for n, s in scene.sites.items()}
        with torch.no_grad():
            reruns = Reruns(scene, grad=False, whole=self._whole.of(scene))
            for name, units in changed.items():
                if len(units):
                    work = self._ablation(scene.sites[name], baselines[name], units, plain)
                    found[name][units] = reruns.on(name, work)
        return found

    def _ablation(
        self, site: Site, baseline: float | Tensor, units: Tensor, plain: Tensor
    ) -> Callable[[Rerun], Tensor]:
        """Return what ablates some units of a layer, as many at once as may be, and gives their importance."""

        def alter(_: int, value: Tensor, row: Tensor) -> Tensor:
            fill = along(baseline.to(value), value, site.axis) if isinstance(baseline, Tensor) else baseline
            return torch.where(along(row, value, site.axis), fill, value)

        def work(rerun: Rerun) -> Tensor:
            count = min(rerun.at_once(self.memory, grad=False), self.most or site.units + 1)
            parts = []
            for some in units.split(max(1, count - 1)):
                rows = some[:, None] == torch.arange(site.units, device=some.device)
                parts.append(_effect(rerun, alter, rows, None if count > 1 else plain))
            return torch.cat(parts)

        return work

    def _baselines_of(self, scene: Scene) -> dict[str, float | Tensor]:
        """Return each layer's baseline.

        Raises:
            BadCallError: A layer is named that is not there, or a tensor has not one number a unit.
        """
        named = dict(self.baselines)
        default = named.pop("", 0.0)
        given = {name: named.pop(name, default) for name in scene.sites}
        wrong = [f"no layer '{name}' is attributed to" for name in named]
        for name, site in scene.sites.items():
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

    With several rows at once one more runs along with nothing ablated: its rounding is theirs, so that a unit without
    effect gets 0 rather than the difference between two kernels.
    """
    if plain is not None:
        return (precise(rerun.scores(alter, rows)) - plain).abs().mean(1)
    scores = precise(rerun.scores(alter, torch.cat([torch.zeros_like(rows[:1]), rows])))
    return (scores[1:] - scores[0]).abs().mean(1)


def _differing(site: Site, values: Sequence[Tensor], baseline: float | Tensor) -> Tensor:
    """Return the numbers of the units that are not at their baseline everywhere."""
    differs = torch.zeros(site.units, dtype=torch.bool)
    for value in values:
        level = along(baseline.to(value), value, site.axis) if isinstance(baseline, Tensor) else baseline
        differs = differs.to(value.device) | (value != level).movedim(site.axis, 0).reshape(site.units, -1).any(1)
    return differs.nonzero()[:, 0]
