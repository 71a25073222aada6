"""DeepLIFT SHAP: DeepLIFT from a set of baselines."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from fgadahat_hooks.importance.attribution.deeplift import DeepliftAbs, contributions
from fgadahat_hooks.importance.attribution.params import Params
from fgadahat_hooks.importance.attribution.scene import Inputs, Scene, Values
from fgadahat_hooks.importance.base import register_measure


@register_measure("deepliftshap_abs")
class DeepliftshapAbs(DeepliftAbs):
    """`I_i = <mean_k m_i(x, x'_k) (z_i(x) - z_i(x'_k))>`, the mean of DeepLIFT over baselines (Lundberg & Lee 2017).

    The baselines stand for the data: by default they are samples of the batch itself, drawn anew each time, the same
    for all samples. A batch of one sample has no others: then the baseline is the zero input. One baseline is held at
    a time, so that memory does not grow with their number.

    Choose it where a zero input means nothing.

    Args:
        n_baselines: Samples drawn from the batch, all of it if it is smaller.
        baselines: A set of your own instead, a tensor `(baselines, *sample)`, for a model of one input.
        seed: Seed of the draw's own generator; the training's random stream is not touched.
        eps: Least difference of a function's argument that counts as one.
        interactions: `exact` or `gradient`, see `deeplift_abs`.
        attribute_to: `gate` or `layer`.
    """

    cost: ClassVar[str] = "2 n_baselines forwards, n_baselines backwards"

    def __init__(self, *, n_baselines: int = 4, baselines: Tensor | None = None, seed: int = 0, **params: Any) -> None:
        """Check the parameters."""
        super().__init__(**params)
        with Params(self.name) as check:
            self.n_baselines = check.count("n_baselines", n_baselines)
            self.seed = check.count("seed", seed, 0)
            self.rows = baselines if baselines is None else check.rows("baselines", baselines)
        self._generator = torch.Generator().manual_seed(self.seed)

    def compute(self, scene: Scene) -> dict[str, Tensor]:
        """Return the measure of every layer, `(units,)`."""
        scene.check_path()
        total: Values = {}
        weight = 1 / self._count(scene)
        for start in self._starts(scene):
            for name, parts in contributions(self, scene, start).items():
                scaled = [weight * p for p in parts]
                total[name] = [t + s for t, s in zip(total[name], scaled, strict=True)] if name in total else scaled
        return scene.mean_abs(total)

    def check(self, scene: Scene) -> None:
        """Refuse a model whose inputs form no path, or with a function that has no rule; draws nothing."""
        contributions(self, scene, scene.inputs(0.0))

    def _count(self, scene: Scene) -> int:
        """Return the number of baselines."""
        return min(self.n_baselines, scene.batch.size) if self.rows is None else len(self.rows)

    def _starts(self, scene: Scene) -> Iterator[Inputs]:
        """Yield the model's inputs at each baseline."""
        size = scene.batch.size
        if self.rows is not None:
            for row in self.rows:
                yield scene.inputs(0.0, row)
        elif size == 1:
            yield scene.inputs(0.0)
        else:
            for place in torch.randperm(size, generator=self._generator)[: self.n_baselines].tolist():
                yield _repeated(scene.inputs(), place, size)

    def state_dict(self) -> dict[str, Any]:
        """Return where the generator stands."""
        return {"generator": self._generator.get_state()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Let the generator go on from there."""
        self._generator.set_state(state["generator"])


def _repeated(inputs: Inputs, place: int, size: int) -> Inputs:
    """Return inputs whose every sample is the one at `place`; integers and what is no batch stay."""

    def repeat(t: Tensor) -> Tensor:
        if not (t.is_floating_point() and t.dim() > 0 and len(t) == size):
            return t
        return t[place : place + 1].expand_as(t).clone()

    return pytree.tree_map_only(Tensor, repeat, inputs)  # type: ignore[no-any-return]
