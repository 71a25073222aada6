"""Fisher information of a layer's weights, from the gradients of single samples."""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor

from fgadahat_hooks.importance.attribution.base import AttributionMeasure
from fgadahat_hooks.importance.attribution.fisher_gradients import (
    Calls,
    find_slopes,
    squares_of_calls,
    squares_one_by_one,
    watch,
)
from fgadahat_hooks.importance.attribution.params import Params
from fgadahat_hooks.importance.attribution.scene import Scene
from fgadahat_hooks.importance.attribution.target import label_log_likelihoods
from fgadahat_hooks.importance.base import register_measure
from fgadahat_hooks.layers import layer_type_of


@register_measure("input_weight_fisher_sum")
class InputWeightFisherSum(AttributionMeasure):
    """`I_i = S_in(mean_b (d log p(y_b|x_b) / dW)^2)_i`, the diagonal of the empirical Fisher information, by unit.

    Each sample's gradient is squared and then the mean taken, as in EWC (Kirkpatrick et al. 2017) with true labels;
    `input_weight_gradient_square_sum` squares the mean gradient of the batch. A target of the user's own stands for the
    log-likelihood. Gradients of single samples come from one backward, by what goes into a layer and the gradient by
    what comes out; a layer that mixes samples, or whose weight the model also uses itself, takes a backward a sample.

    Choose it for the importance that EWC gives weights: how much the predicted probabilities depend on them.

    Args:
        memory_mb: Megabytes that gradients of single samples may take at once; one sample's are computed in any case.
    """

    cost: ClassVar[str] = "1 forward, 2 backwards, and the gradient of each layer's weight sample by sample"

    def __init__(self, *, memory_mb: float = 4.0) -> None:
        """Check the parameters."""
        super().__init__()
        with Params(self.name) as check:
            self.memory = check.number("memory_mb", memory_mb, 0.0) * 2**20

    @staticmethod
    def score(output: Any, labels: Tensor) -> Tensor:
        """Return the log-probability of the true label, `(batch,)`."""
        return label_log_likelihoods(output, labels)

    def compute(self, scene: Scene) -> dict[str, Tensor]:
        """Return the measure of every layer, `(units,)`."""
        with watch(scene) as layers:
            scores = scene.run().scores
        find_slopes(layers, scores)
        squares = {layer.name: squares_of_calls(layer, self.memory) for layer in layers if layer.apart}
        rest = squares_one_by_one([layer for layer in layers if squares.get(layer.name) is None], scores)
        size = scene.batch.size
        return {layer.name: _by_unit(layer, rest.get(layer.name, squares.get(layer.name))) / size for layer in layers}


def _by_unit(layer: Calls, square: Tensor | None) -> Tensor:
    kind = layer_type_of(layer.module)
    if kind is None or square is None:
        raise TypeError(f"Layer {layer.name!r} is of no registered type.")
    return kind.sum_by_unit(layer.module, square).detach()
