"""Fisher information of a layer's weights, from per-sample gradients."""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor

from fgadahat_hooks.importance.attribution.attribution_batch import AttributionBatch
from fgadahat_hooks.importance.attribution.base import AttributionMeasure
from fgadahat_hooks.importance.attribution.fisher_gradients import (
    LayerCalls,
    record_calls,
    set_gradients,
    squared_gradients_from_calls,
    squared_gradients_one_by_one,
)
from fgadahat_hooks.importance.attribution.target import label_log_likelihoods
from fgadahat_hooks.importance.base import register_measure
from fgadahat_hooks.importance.params import ParamChecker
from fgadahat_hooks.layers import layer_type_of


@register_measure("input_weight_fisher_sum")
class InputWeightFisherSum(AttributionMeasure):
    """`I_i = S_in(mean_b (d log p(y_b|x_b) / dW)^2)_i`, the diagonal of the empirical Fisher information, by unit.

    Each sample's gradient is squared before the mean is taken, as in EWC (Kirkpatrick et al. 2017) with true labels;
    `input_weight_gradient_square_sum` squares the mean gradient of the batch. A target set by the user replaces the
    log-likelihood. Per-sample gradients are computed from one backward: from a layer's inputs and the gradients by its
    outputs. A layer that mixes samples, or whose weight the model also uses directly, takes one backward a sample.

    Choose it for the importance that EWC gives weights: how much the predicted probabilities depend on them.

    Args:
        memory_mb: Megabytes that per-sample gradients may take at once; those of one sample are always computed.
    """

    cost: ClassVar[str] = "1 forward, 2 backwards, and the gradient of each layer's weight sample by sample"

    def __init__(self, *, memory_mb: float = 4.0) -> None:
        """Check the parameters."""
        super().__init__()
        with ParamChecker(self.name) as check:
            self.memory = check.number("memory_mb", memory_mb, 0.0) * 2**20

    @staticmethod
    def score(output: Any, labels: Tensor) -> Tensor:
        """Return the log-probability of the true label, `(batch,)`."""
        return label_log_likelihoods(output, labels)

    def compute(self, batch: AttributionBatch) -> dict[str, Tensor]:
        """Return the measure of every layer, `(units,)`."""
        with record_calls(batch) as layers:
            scores = batch.run().scores
        set_gradients(layers, scores)
        squares = {layer.name: squared_gradients_from_calls(layer, self.memory) for layer in layers if layer.separable}
        rest = squared_gradients_one_by_one([layer for layer in layers if squares.get(layer.name) is None], scores)
        total = {layer.name: rest.get(layer.name, squares.get(layer.name)) for layer in layers}
        return {layer.name: _sum_by_unit(layer, total[layer.name]) / batch.size for layer in layers}


def _sum_by_unit(layer: LayerCalls, square: Tensor | None) -> Tensor:
    kind = layer_type_of(layer.module)
    if kind is None or square is None:
        raise TypeError(f"Layer {layer.name!r} is of no registered type.")
    return kind.sum_by_unit(layer.module, square).detach()
