"""DeepLIFT SHAP: DeepLIFT from a set of baselines."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from fgadahat_hooks.importance.attribution.attribution_batch import AttributionBatch, Inputs, Values, add_values
from fgadahat_hooks.importance.attribution.deeplift import DeepliftAbs, contributions
from fgadahat_hooks.importance.base import register_measure
from fgadahat_hooks.importance.params import ParamChecker


@register_measure("deepliftshap_abs")
class DeepliftshapAbs(DeepliftAbs):
    """`I_i = <mean_k m_i(x, x'_k) (z_i(x) - z_i(x'_k))>`, the mean of DeepLIFT over baselines (Lundberg & Lee 2017).

    The baselines represent the data: by default they are samples of the batch itself, newly drawn each time, the same
    for all samples. For a batch of one sample the baseline is the zero input. Only one baseline is in memory at a time,
    so that memory does not grow with their number.

    Choose it where a zero input means nothing.

    Args:
        n_baselines: Number of samples drawn from the batch; the whole batch if it is smaller.
        baselines: Your own set instead, a tensor `(baselines, *sample)`, for a model of one input.
        seed: Seed of the generator that draws them; the random state of the training is not changed.
        eps: Smallest difference of a function's argument that is divided by.
        interactions: `exact` or `gradient`, see `deeplift_abs`.
        attribute_to: `gate` or `layer`.
    """

    cost: ClassVar[str] = "2 n_baselines forwards, n_baselines backwards"

    def __init__(self, *, n_baselines: int = 4, baselines: Tensor | None = None, seed: int = 0, **params: Any) -> None:
        """Check the parameters."""
        super().__init__(**params)
        with ParamChecker(self.name) as check:
            self.n_baselines = check.count("n_baselines", n_baselines)
            self.seed = check.count("seed", seed, 0)
            self.rows = baselines if baselines is None else check.rows("baselines", baselines)
        self._generator = torch.Generator().manual_seed(self.seed)

    def compute(self, batch: AttributionBatch) -> dict[str, Tensor]:
        """Return the measure of every layer, `(units,)`."""
        batch.check_path()
        total: Values = {}
        weight = 1 / self._count(batch)
        for start in self._starts(batch):
            found = contributions(self, batch, start)
            add_values(total, {name: [weight * p for p in parts] for name, parts in found.items()})
        return batch.mean_abs(total)

    def check(self, batch: AttributionBatch) -> None:
        """Refuse a model whose inputs form no path, or with a function that has no rule; draws nothing."""
        contributions(self, batch, batch.inputs(0.0))

    def _count(self, batch: AttributionBatch) -> int:
        """Return the number of baselines."""
        return min(self.n_baselines, batch.size) if self.rows is None else len(self.rows)

    def _starts(self, batch: AttributionBatch) -> Iterator[Inputs]:
        """Yield the model's inputs at each baseline."""
        size = batch.size
        if self.rows is not None:
            for row in self.rows:
                yield batch.inputs(0.0, row)
        elif size == 1:
            yield batch.inputs(0.0)
        else:
            for index in torch.randperm(size, generator=self._generator)[: self.n_baselines].tolist():
                yield _repeated(batch.inputs(), index, size)

    def state_dict(self) -> dict[str, Any]:
        """Return the state of the generator."""
        return {"generator": self._generator.get_state()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the state of the generator."""
        self._generator.set_state(state["generator"])


def _repeated(inputs: Inputs, index: int, size: int) -> Inputs:
    """Return inputs whose samples all equal the one at `index`; integers and arguments without a batch axis stay."""

    def repeat(t: Tensor) -> Tensor:
        if not (t.is_floating_point() and t.dim() > 0 and len(t) == size):
            return t
        return t[index : index + 1].expand_as(t).clone()

    return pytree.tree_map_only(Tensor, repeat, inputs)  # type: ignore[no-any-return]
