"""Measures that run the model again on the batch: one pass for all layers."""

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
from fgadahat_hooks.importance.attribution.base import AttributionMeasure
from fgadahat_hooks.importance.attribution.capture import Site
from fgadahat_hooks.importance.attribution.scene import Batch, Run, Scene, open_scene

__all__ = [
    "AttributionMeasure",
    "Batch",
    "Run",
    "Scene",
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
    "open_scene",
]
