"""Layer-wise relevance propagation."""

from __future__ import annotations

from typing import Any, ClassVar, get_args

from torch import Tensor

from fgadahat_hooks.importance.attribution.base import AttributionMeasure
from fgadahat_hooks.importance.attribution.params import Params
from fgadahat_hooks.importance.attribution.rules_lrp import LrpRules, Rule
from fgadahat_hooks.importance.attribution.rules_watch import watching
from fgadahat_hooks.importance.attribution.scene import Scene, Values
from fgadahat_hooks.importance.base import register_measure


@register_measure("lrp_abs")
class LrpAbs(AttributionMeasure):
    """`I_i = <R_i>`, the relevance of `z_i` to the label's logit (Bach et al. 2015; Eq. 58 by default).

    `R_j = sum_i z_j w_ij / (y_i + eps sign(y_i)) R_i`: without biases the relevances of a layer through which
    everything flows sum to the logit. Other rules (Montavon et al. 2019, section 10.2) have, for `z_j w_ij`,
    `z_j (w_ij + gamma max(w_ij, 0))` or `max(z_j w_ij, 0)`, and as `y_i` the sum of these and of the bias taken
    likewise.

    The gate's mask is a constant factor, which keeps relevance as it is. A skip connection shares it among its
    branches. Activation functions that leave 0 at 0 pass it on; a max pool gives it to the winner.

    A function without a rule is refused: softmax, norms over features, attention, products of activations.

    Choose it for networks of convolutions, linear layers and ReLUs.

    Args:
        rule: `epsilon`, `gamma` or `alpha1_beta0`, how linear and convolutional layers share relevance among their
            inputs: all parts, positive ones more, positive ones alone. All other sums go by `epsilon`.
        gamma: How much more a positive weight counts by the rule `gamma`, > 0.
        epsilon: The stabiliser `eps` > 0; a larger one absorbs the relevance of small sums.
        attribute_to: `gate` or `layer`.
    """

    cost: ClassVar[str] = "1 forward, 1 backward"

    def __init__(self, *, rule: Rule = "epsilon", gamma: float = 0.25, epsilon: float = 1e-9, **params: Any) -> None:
        """Check the parameters."""
        super().__init__(**params)
        with Params(self.name) as check:
            self.rule: Rule = check.choice("rule", rule, get_args(Rule))
            self.gamma = check.number("gamma", gamma, 0.0)
            self.epsilon = check.number("epsilon", epsilon, 0.0)

    def compute(self, scene: Scene) -> dict[str, Tensor]:
        """Return the measure of every layer, `(units,)`."""
        return scene.mean_abs(relevances(self, scene))

    def check(self, scene: Scene) -> None:
        """Refuse a model with a function that has no rule."""
        self.compute(scene)


def relevances(measure: LrpAbs, scene: Scene) -> Values:
    """Return the relevance of every value.

    Args:
        measure: Says how.
        scene: The model and its inputs.

    Raises:
        CapabilityError: The model calls a function that has no rule.
    """
    advice = (
        f"Measure '{measure.name}' knows no rule for {{}}. Use gradient_x_activation_abs, deeplift_abs or "
        "conductance_abs."
    )
    with watching(scene.model, LrpRules(measure.epsilon, measure.rule, measure.gamma), advice):
        run = scene.run_on(scene.inputs())
    return {
        name: [z.detach() * m for z, m in zip(run.values[name], parts, strict=True)]
        for name, parts in run.gradients().items()
    }
