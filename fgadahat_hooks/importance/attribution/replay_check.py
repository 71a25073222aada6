"""Find out whether running a part of a forward again gives what a whole forward gives."""

from __future__ import annotations

import logging

import torch
from torch import Tensor

from fgadahat_hooks.importance.attribution.replay import Rerun, Reruns, Whole
from fgadahat_hooks.importance.attribution.scene import Scene

_log = logging.getLogger(__name__)
_SHARE, _FLOOR = 1e-2, 1e-3
"""How far the two may differ: as a share of the change, and of the scores."""


class WholeLayers:
    """The layers of one model that must run as whole forwards, found out on the first batch."""

    def __init__(self) -> None:
        """Know nothing yet."""
        self._found: frozenset[str] | None = None

    def of(self, scene: Scene) -> frozenset[str]:
        """Return them."""
        if self._found is None:
            self._found = layers_to_run_whole(scene)
        return self._found


def layers_to_run_whole(scene: Scene) -> frozenset[str]:
    """Return the layers whose part of the forward, run again, gives something else.

    Every layer is set to another value, once either way. They differ where values take a way that torch does not see.
    All layers are returned if the forward cannot be recorded at all.
    """
    with torch.no_grad():
        reruns = Reruns(scene, grad=False)
        if not reruns.recorded:
            return frozenset(scene.sites)
        plain = scene.run(grad=False).scores
        found = frozenset(name for name in scene.sites if _differs(scene, reruns, name, plain))
    for name in found:
        _log.info("Whole forwards are run for layer '%s': parts of them, run again, give something else.", name)
    return found


def _differs(scene: Scene, reruns: Reruns, layer: str, plain: Tensor) -> bool:
    row = [torch.zeros(1)]
    short = reruns.on(layer, lambda rerun: _halved(rerun, row))
    whole = _halved(Whole(scene, layer), row)
    allowed = _SHARE * (whole - plain).abs() + _FLOOR * plain.abs()
    return bool(((short - whole).abs() > allowed).any())


def _halved(rerun: Rerun, row: list[Tensor]) -> Tensor:
    return rerun.scores(lambda _, value, __: value * 0.5, row)[0]
