"""DeepLIFT: how much of the score's difference from a baseline's goes through a unit."""

from __future__ import annotations

from typing import Any, ClassVar, get_args

from torch import Tensor

from fgadahat_hooks.importance.attribution.base import AttributionMeasure
from fgadahat_hooks.importance.attribution.params import Params
from fgadahat_hooks.importance.attribution.rules_deeplift import DeepLiftRules, Interactions
from fgadahat_hooks.importance.attribution.rules_watch import watching
from fgadahat_hooks.importance.attribution.scene import Baseline, Inputs, Scene, Values
from fgadahat_hooks.importance.base import register_measure


@register_measure("deeplift_abs")
class DeepliftAbs(AttributionMeasure):
    """`I_i = <m_i (z_i(x) - z_i(x'))>`, `m` the multipliers of DeepLIFT's Rescale rule (Shrikumar et al. 2017).

    The attributions of a layer through which everything flows sum to `F_y(x) - F_y(x')`.

    Element-wise functions and max pools have the rules of captum, as modules or functions, in place or not, and used
    any number of times. What is neither linear nor element-wise has by default a multiplier too, so that the sum holds
    in transformers and gated networks; captum takes its gradient instead, which `interactions` asks for. A function
    without a rule is refused.

    Choose it for conductance's question at the cost of three passes.

    Args:
        baselines: `x'`, a number or a tensor like the inputs or like one sample.
        eps: Least difference of a function's argument that counts as one; below, its gradient is the multiplier.
        interactions: Products of activations, softmax, norms over features, and attention. `exact`: multipliers that
            sum up, put together from those of their parts. `gradient`: the gradient at the input, as in captum.
        attribute_to: `gate` or `layer`.
    """

    cost: ClassVar[str] = "2 forwards, 1 backward"

    def __init__(
        self, *, baselines: Baseline = 0.0, eps: float = 1e-10, interactions: Interactions = "exact", **params: Any
    ) -> None:
        """Check the parameters."""
        super().__init__(**params)
        with Params(self.name) as check:
            self.baselines = check.baseline("baselines", baselines)
            self.eps = check.number("eps", eps, 0.0)
            self.interactions: Interactions = check.choice("interactions", interactions, get_args(Interactions))

    def compute(self, scene: Scene) -> dict[str, Tensor]:
        """Return the measure of every layer, `(units,)`."""
        return scene.mean_abs(contributions(self, scene, scene.inputs(0.0, self.baselines)))

    def check(self, scene: Scene) -> None:
        """Refuse a model whose inputs form no path, or with a function that has no rule."""
        self.compute(scene)


def contributions(measure: DeepliftAbs, scene: Scene, start: Inputs) -> Values:
    """Return `m_i (z_i(x) - z_i(x'))` of every value.

    Args:
        measure: Says how.
        scene: The model and the inputs `x`.
        start: The inputs `x'`.

    Raises:
        CapabilityError: The model calls a function that has no rule.
    """
    rules = DeepLiftRules(measure.eps, measure.interactions)
    advice = (
        f"Measure '{measure.name}' knows no multiplier of {{}}. Use interactions: 'gradient' if it is a norm or an "
        "attention, or else a measure by gradients: gradient_x_activation_abs, internal_influence_abs."
    )
    with watching(scene.model, rules, advice):
        with rules.noting():
            before = {name: [v.detach() for v in parts] for name, parts in scene.run_on(start).values.items()}
        run = scene.run_on(scene.inputs())
    rules.finish()
    return {
        name: [m * (z.detach() - z0) for m, z, z0 in zip(parts, run.values[name], before[name], strict=True)]
        for name, parts in run.gradients().items()
    }
