"""Importance measures: how much each unit of a layer matters to the running task.

A measure is one class registered by name. It sees one layer of one step through a `LayerView` and returns a raw
importance `(units,)` >= 0; scaling, masking and summing happen in `functional` and `callbacks`.

To add a measure, write one file here (measures of the same terms may share one): a subclass of `Measure` under
`@register_measure("its_name")` with `needs` and `compute`, made of the sums in terms.py; then import the file below.
Measures that run the model again live in attribution/. Nothing here installs hooks that outlive a step, or applies a
mask.
"""

from __future__ import annotations

from fgadahat_hooks.importance import activation, attribution, cbp, combined, gradient, weight
from fgadahat_hooks.importance.attribution import AttributionMeasure
from fgadahat_hooks.importance.base import BaseMeasure, ConsumerView, LayerView, Measure, register_measure

__all__ = [
    "AttributionMeasure",
    "BaseMeasure",
    "ConsumerView",
    "LayerView",
    "Measure",
    "activation",
    "attribution",
    "cbp",
    "combined",
    "gradient",
    "register_measure",
    "weight",
]
