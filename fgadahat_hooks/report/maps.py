"""The values of each heat map; None where a run has nothing to show."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from fgadahat_hooks.report.heat_map import HeatMap
from fgadahat_hooks.summary.summary import RunSummary


def accuracy_map(run: RunSummary, names: Sequence[str]) -> HeatMap | None:
    """Return the accuracy on each task after learning each task."""
    if run.accuracy is None or not names or bool(run.accuracy.isnan().all()):
        return None
    values = run.accuracy.tolist()
    return HeatMap("Accuracy in %", "after learning", "task", names, names, values, digits=1)


def use_map(run: RunSummary, names: Sequence[str]) -> HeatMap | None:
    """Return the share of each layer's units that each task uses."""
    if not names or not run.layers:
        return None
    use = run.unit_use()
    values = [[*use[layer].values(), _share_of_any_task(run, layer)] for layer in run.layers]
    columns = [*names, "any task"]
    return HeatMap("Units used, in % of the layer's", "layer", "task", list(run.layers), columns, values)


def _share_of_any_task(run: RunSummary, layer: str) -> float:
    masks = torch.stack([run.masks[task][layer] for task in run.tasks])
    return float(masks.any(0).double().mean())


def reuse_map(run: RunSummary, names: Sequence[str]) -> HeatMap | None:
    """Return the share of each task's signal that comes from earlier tasks' units, by the layer that reads it."""
    known = dict.fromkeys(layer for shares in run.reuse.values() for layer in shares)
    if len(names) < 2 or not known:
        return None
    values = [[run.reuse.get(task, {}).get(layer, math.nan) for task in run.tasks] for layer in known]
    return HeatMap("Signal from earlier tasks' units in %", "read by", "task", list(known), names, values)


def overlap_map(run: RunSummary, names: Sequence[str]) -> HeatMap | None:
    """Return the share of each task's units that each other task uses too."""
    if len(names) < 2 or not run.layers:
        return None
    return HeatMap("Units shared, in % of the row's", "of the units of", "task", names, names, run.overlap().tolist())


def rate_map(run: RunSummary, names: Sequence[str]) -> HeatMap | None:
    """Return the mean adjustment rate of each gated weight after each task, without biases."""
    known = dict.fromkeys(name for rates in run.rates.values() for name in rates if not name.endswith("bias"))
    if not known:
        return None
    values = [[run.rates.get(task, {}).get(name, math.nan) for task in run.tasks] for name in known]
    return HeatMap("Mean adjustment rate in %", "weight", "task", list(known), names, values)
