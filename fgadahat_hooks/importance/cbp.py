"""The utility of continual backprop, with its running means."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from fgadahat_hooks.errors import BadCallError
from fgadahat_hooks.importance.base import LayerView, Measure, register_measure
from fgadahat_hooks.importance.params import ParamChecker
from fgadahat_hooks.importance.terms import activation, input_sum, output_sum, weight_abs
from fgadahat_hooks.importance.weight import RECIPROCAL_EPSILON


@dataclass(frozen=True, eq=False)
class _Running:
    """Running means of one layer, without the correction for their start at 0."""

    age: int
    mean: Tensor
    utility: Tensor


@register_measure("cbp_utility")
class CbpUtility(Measure):
    """`I_i = u_i / (1 - eta^a)`, `u <- eta u + (1 - eta) <h_i - f_i> S_out(|W_next|)_i / S_in(|W|)_i`.

    The overall utility of continual backprop (arXiv 2108.06325, Sec. 4): `f_i` is the running mean of `h_i` up to the
    step before, likewise with decay `eta` and corrected, 0 in the first step; `a` counts the measured steps. Running
    means continue from task to task. Where the paper uses single samples, this uses the mean over the batch.

    Choose it to protect the units that continual backprop would keep; constant activations count for nothing, because
    a bias could replace them.

    Args:
        decay: `eta`, between 0 and 1.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"weight", "activation", "signed_activation", "consumers"})

    def __init__(self, *, decay: float = 0.99) -> None:
        """Check the parameters; start without running means."""
        super().__init__()
        with ParamChecker(self.name) as check:
            self.decay = check.share("decay", decay)
        self._layers: dict[str, _Running] = {}

    def centre(self, layer: str) -> Tensor | None:
        """Return `f`, `(units,)`; None before the first step."""
        running = self._layers.get(layer)
        return None if running is None else running.mean / self._correction(running.age)

    def compute(self, view: LayerView) -> Tensor:
        """Return the measure, `(units,)`."""
        if view.signed_activation is None:
            raise BadCallError(f"Expected layer {view.name!r} to have a signed activation, but there is none.")
        newest = activation(view) * output_sum(view, weight_abs) / (input_sum(view, weight_abs) + RECIPROCAL_EPSILON)
        signed = view.signed_activation.detach()
        running = self._layers.get(view.name) or _Running(0, torch.zeros_like(signed), torch.zeros_like(newest))
        running = replace(
            running,
            age=running.age + 1,
            mean=self.decay * running.mean.to(signed) + (1 - self.decay) * signed,
            utility=self.decay * running.utility.to(newest) + (1 - self.decay) * newest,
        )
        self._layers[view.name] = running
        return running.utility / self._correction(running.age)

    def _correction(self, age: int) -> float:
        """Return the total weight of the first `age` steps in a running mean."""
        return 1.0 - self.decay**age

    def state_dict(self) -> dict[str, Any]:
        """Return the running means."""
        return {
            name: {"age": running.age, "mean": running.mean, "utility": running.utility}
            for name, running in self._layers.items()
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self._layers = {name: _Running(s["age"], s["mean"], s["utility"]) for name, s in state.items()}
