"""Attribution measures: these run the model again on the batch, for all layers at once.

One measure a file; to add one, subclass `AttributionMeasure`, register it and import its file below. What they share:
`attribution_batch` runs the model on a batch, `layer_outputs` keeps what layers put out, `target` is what is
attributed, `replay*` runs only the operations after a layer, `rules*` are the rules of DeepLIFT and LRP by function.
captum may be imported here only.
"""

from __future__ import annotations

from fgadahat_hooks.importance.attribution import (
    conductance,
    deeplift,
    deeplift_shap,
    feature_ablation,
    fisher,
    gradcam,
    gradient_shap,
    gradient_x_activation,
    integrated_gradients,
    internal_influence,
    lrp,
)
from fgadahat_hooks.importance.attribution.attribution_batch import (
    AttributionBatch,
    AttributionCall,
    ForwardResult,
    open_attribution_batch,
)
from fgadahat_hooks.importance.attribution.base import AttributionMeasure
from fgadahat_hooks.importance.attribution.layer_outputs import Site

__all__ = [
    "AttributionBatch",
    "AttributionCall",
    "AttributionMeasure",
    "ForwardResult",
    "Site",
    "conductance",
    "deeplift",
    "deeplift_shap",
    "feature_ablation",
    "fisher",
    "gradcam",
    "gradient_shap",
    "gradient_x_activation",
    "integrated_gradients",
    "internal_influence",
    "lrp",
    "open_attribution_batch",
]
