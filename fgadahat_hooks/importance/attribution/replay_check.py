"""Check that replaying a part of a recorded forward gives the same as a full forward."""

from __future__ import annotations

import logging

import torch
from torch import Tensor

from fgadahat_hooks.importance.attribution.attribution_batch import AttributionBatch
from fgadahat_hooks.importance.attribution.replay import FullForward, LayerReruns, Rerun

_log = logging.getLogger(__name__)
_SHARE, _FLOOR = 1e-2, 1e-3
"""Largest difference allowed between the two: as a share of the change, and of the scores."""


class FullForwardLayers:
    """The layers of one model that need full forwards, determined on the first batch."""

    def __init__(self) -> None:
        """Start with nothing determined."""
        self._layers: frozenset[str] | None = None

    def of(self, batch: AttributionBatch) -> frozenset[str]:
        """Return the names of these layers."""
        if self._layers is None:
            self._layers = layers_needing_full_forward(batch)
        return self._layers


def layers_needing_full_forward(batch: AttributionBatch) -> frozenset[str]:
    """Return the layers whose replay gives other scores than a full forward.

    The output of every layer is altered once, with both. They differ where values pass through code that torch does not
    see. All layers are returned if the forward cannot be recorded at all.
    """
    with torch.no_grad():
        reruns = LayerReruns(batch, grad=False)
        if not reruns.recorded:
            return frozenset(batch.sites)
        plain = batch.run(grad=False).scores
        found = frozenset(name for name in batch.sites if _differs(batch, reruns, name, plain))
    for name in found:
        _log.info("Whole forwards are run for layer '%s': parts of them, run again, give something else.", name)
    return found


def _differs(batch: AttributionBatch, reruns: LayerReruns, layer: str, plain: Tensor) -> bool:
    row = [torch.zeros(1)]
    replayed = reruns.run(layer, lambda rerun: _scores_of_halved(rerun, row))
    full = _scores_of_halved(FullForward(batch, layer), row)
    allowed = _SHARE * (full - plain).abs() + _FLOOR * plain.abs()
    return bool(((replayed - full).abs() > allowed).any())


def _scores_of_halved(rerun: Rerun, row: list[Tensor]) -> Tensor:
    return rerun.scores(lambda _, value, __: value * 0.5, row)[0]
