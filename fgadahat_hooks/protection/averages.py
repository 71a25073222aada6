"""The average of the weights that a schedule-free optimizer keeps, and moves the weights to between its steps."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.optim import Optimizer

from fgadahat_hooks.gates.kept_entries import KeptEntries
from fgadahat_hooks.gates.kept_weights import KeptWeights


def set_averages(optimizer: Optimizer, kept: KeptWeights | None) -> None:
    """Give the kept entries of a schedule-free optimizer's own points, `z` and `x`, the kept values.

    Its `train()` and `eval()` set `p + w (z - p)`, which is `p` where `z` is `p`. Optimizers without these two methods
    are left alone: the names may mean something else there.
    """
    if kept is None or not (hasattr(optimizer, "train") and hasattr(optimizer, "eval")):
        return
    with torch.no_grad():
        for name, entries in {**kept.gated, **kept.frozen}.items():
            tensor = kept.live(name)
            state = {} if tensor is None else optimizer.state.get(tensor, {})
            for average in (state.get("z"), state.get("x")):
                if isinstance(entries, KeptEntries) and isinstance(average, Tensor) and entries.fits(average):
                    entries.write_into(average)
