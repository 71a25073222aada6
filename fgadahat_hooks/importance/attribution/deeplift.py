"""DeepLIFT: the part of the score's difference from a baseline that goes through a unit."""

from __future__ import annotations

from typing import Any, ClassVar, get_args

from torch import Tensor

from fgadahat_hooks.importance.attribution.attribution_batch import AttributionBatch, Baseline, Inputs, Values
from fgadahat_hooks.importance.attribution.base import AttributionMeasure
from fgadahat_hooks.importance.attribution.rules_deeplift import DeepLiftRules, Interactions
from fgadahat_hooks.importance.attribution.rules_mode import apply_rules
from fgadahat_hooks.importance.base import register_measure
from fgadahat_hooks.importance.params import ParamChecker


@register_measure("deeplift_abs")
class DeepliftAbs(AttributionMeasure):
    """`I_i = <m_i (z_i(x) - z_i(x'))>`, `m` the multipliers of DeepLIFT's Rescale rule (Shrikumar et al. 2017).

    The attributions of a layer through which everything flows sum to `F_y(x) - F_y(x')`.

    Element-wise functions and max pools have captum's rules, as modules or functions, in place or not, and used any
    number of times. Functions that are neither linear nor element-wise have multipliers too by default, so that the sum
    holds in transformers and gated networks; `interactions: gradient` takes their gradients, as captum does. A function
    without a rule is refused.

    Choose it to measure what conductance measures at the cost of three passes.

    Args:
        baselines: `x'`, a number or a tensor like the inputs or like one sample.
        eps: Smallest difference of a function's argument that is divided by; below, the gradient is the multiplier.
        interactions: For products of activations, softmax, norms over features, and attention. `exact`: multipliers
            that sum up, composed of those of their parts. `gradient`: the gradient at the input, as in captum.
        attribute_to: `gate` or `layer`.
    """

    cost: ClassVar[str] = "2 forwards, 1 backward"

    def __init__(
        self, *, baselines: Baseline = 0.0, eps: float = 1e-10, interactions: Interactions = "exact", **params: Any
    ) -> None:
        """Check the parameters."""
        super().__init__(**params)
        with ParamChecker(self.name) as check:
            self.baselines = check.baseline("baselines", baselines)
            self.eps = check.number("eps", eps, 0.0)
            self.interactions: Interactions = check.choice("interactions", interactions, get_args(Interactions))

    def compute(self, batch: AttributionBatch) -> dict[str, Tensor]:
        """Return the measure of every layer, `(units,)`."""
        return batch.mean_abs(contributions(self, batch, batch.inputs(0.0, self.baselines)))

    def check(self, batch: AttributionBatch) -> None:
        """Refuse a model whose inputs form no path, or with a function that has no rule."""
        self.compute(batch)


def contributions(measure: DeepliftAbs, batch: AttributionBatch, start: Inputs) -> Values:
    """Return `m_i (z_i(x) - z_i(x'))` of every value.

    Args:
        measure: Its parameters.
        batch: The model and the inputs `x`.
        start: The inputs `x'`.

    Raises:
        CapabilityError: The model calls a function that has no rule.
    """
    rules = DeepLiftRules(measure.eps, measure.interactions)
    advice = (
        f"Measure '{measure.name}' knows no multiplier of {{}}. Use interactions: 'gradient' if it is a norm or an "
        "attention, or else a measure by gradients: gradient_x_activation_abs, internal_influence_abs."
    )
    with apply_rules(batch.model, rules, advice):
        with rules.record_baseline():
            baseline = {name: [v.detach() for v in parts] for name, parts in batch.run_on(start).values.items()}
        run = batch.run_on(batch.inputs())
    rules.finish()
    return {
        name: [m * (z.detach() - z0) for m, z, z0 in zip(parts, run.values[name], baseline[name], strict=True)]
        for name, parts in run.gradients().items()
    }
