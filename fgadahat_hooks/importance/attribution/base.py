"""The base class of attribution measures, which run the model again."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar, Literal, get_args

from torch import Tensor

from fgadahat_hooks.importance.attribution.attribution_batch import AttributionBatch
from fgadahat_hooks.importance.attribution.target import label_scores
from fgadahat_hooks.importance.base import BaseMeasure
from fgadahat_hooks.importance.params import ParamChecker

AttributeTo = Literal["gate", "layer"]


class AttributionMeasure(BaseMeasure, ABC):
    """A measure of all layers at once that runs the model again on the batch, as in evaluation.

    Attributes:
        attribute_to: `gate`: the units after norm and gate, where an inactive unit counts 0. `layer`: the layer's own
            output `z`, as captum and the reference implementation have it.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"model"})

    def __init__(self, *, attribute_to: AttributeTo = "gate") -> None:
        """Choose where units are attributed to.

        Raises:
            BadCallError: `attribute_to` is neither.
        """
        with ParamChecker(self.name) as check:
            self.attribute_to = check.choice("attribute_to", attribute_to, get_args(AttributeTo))

    @staticmethod
    def score(output: Any, labels: Tensor) -> Tensor:
        """Return what is attributed when the user gives no target, `(batch,)`: the logit of the true label."""
        return label_scores(output, labels)

    @abstractmethod
    def compute(self, batch: AttributionBatch) -> dict[str, Tensor]:
        """Return the raw importance of each unit of each layer, `(units,)`, >= 0, detached."""

    def check(self, batch: AttributionBatch) -> None:
        """Refuse a model on which the measure would be wrong; called once, on example inputs, before attaching.

        Raises:
            CapabilityError: Names the module and what to use instead.
        """
        batch.run()
