"""Layer-wise relevance propagation."""

from __future__ import annotations

from typing import Any, ClassVar, get_args

from torch import Tensor

from fgadahat_hooks.importance.attribution.attribution_batch import AttributionBatch, Values
from fgadahat_hooks.importance.attribution.base import AttributionMeasure
from fgadahat_hooks.importance.attribution.rules_lrp import LrpRules, Rule
from fgadahat_hooks.importance.attribution.rules_mode import apply_rules
from fgadahat_hooks.importance.base import register_measure
from fgadahat_hooks.importance.params import ParamChecker


@register_measure("lrp_abs")
class LrpAbs(AttributionMeasure):
    """`I_i = <R_i>`, the relevance of `z_i` to the label's logit (Bach et al. 2015; Eq. 58 by default).

    `R_j = sum_i z_j w_ij / (y_i + eps sign(y_i)) R_i`: without biases the relevances of a layer through which
    everything flows sum to the logit. Other rules (Montavon et al. 2019, section 10.2) replace `z_j w_ij` by
    `z_j (w_ij + gamma max(w_ij, 0))` or `max(z_j w_ij, 0)`, and `y_i` by the sum of these and of the bias treated
    alike.

    The gate's mask is a constant factor, which leaves relevance unchanged. A skip connection divides it among its
    branches. Activation functions that map 0 to 0 pass it on; a max pool gives it to the maximum.

    A function without a rule is refused: softmax, norms over features, attention, products of activations.

    Choose it for networks of convolutions, linear layers and ReLUs.

    Args:
        rule: How linear and convolutional layers divide relevance among their inputs: `epsilon` by all terms, `gamma`
            with more for positive ones, `alpha1_beta0` by positive ones only. All other sums follow `epsilon`.
        gamma: How much more a positive weight counts under the rule `gamma`, > 0.
        epsilon: The stabiliser `eps` > 0; a larger one absorbs the relevance of small sums.
        attribute_to: `gate` or `layer`.
    """

    cost: ClassVar[str] = "1 forward, 1 backward"

    def __init__(self, *, rule: Rule = "epsilon", gamma: float = 0.25, epsilon: float = 1e-9, **params: Any) -> None:
        """Check the parameters."""
        super().__init__(**params)
        with ParamChecker(self.name) as check:
            self.rule: Rule = check.choice("rule", rule, get_args(Rule))
            self.gamma = check.number("gamma", gamma, 0.0)
            self.epsilon = check.number("epsilon", epsilon, 0.0)

    def compute(self, batch: AttributionBatch) -> dict[str, Tensor]:
        """Return the measure of every layer, `(units,)`."""
        return batch.mean_abs(relevances(self, batch))

    def check(self, batch: AttributionBatch) -> None:
        """Refuse a model with a function that has no rule."""
        self.compute(batch)


def relevances(measure: LrpAbs, batch: AttributionBatch) -> Values:
    """Return the relevance of every value.

    Args:
        measure: Its parameters.
        batch: The model and its inputs.

    Raises:
        CapabilityError: The model calls a function that has no rule.
    """
    advice = (
        f"Measure '{measure.name}' knows no rule for {{}}. Use gradient_x_activation_abs, deeplift_abs or "
        "conductance_abs."
    )
    with apply_rules(batch.model, LrpRules(measure.epsilon, measure.rule, measure.gamma), advice):
        run = batch.run_on(batch.inputs())
    return {
        name: [z.detach() * m for z, m in zip(run.values[name], parts, strict=True)]
        for name, parts in run.gradients().items()
    }
