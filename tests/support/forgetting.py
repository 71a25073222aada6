"""Several tasks one after another, each earlier one compared after each later one."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

import fgadahat_hooks as fh
from tests.support.learning import Recipe, learn, logits
from tests.support.zoo_models import CLASSES, images, labels

STEPS = 3
PROBES = 5
"""Number of images on which the logits of every task are compared."""


class History:
    """An attached model, and the logits of each task as they were when it ended."""

    def __init__(self, model: nn.Module, spec: object = None, callbacks: list[fh.Callback] | None = None) -> None:
        """Attach to a model for images."""
        self.session = fh.attach(model, {} if spec is None else spec, images(1), callbacks)
        self.probe = images(PROBES, seed=99)
        self.ended: dict[str, Tensor] = {}

    def learn(self, task: str, how: Recipe, *, classes: int = CLASSES, accumulate: int = 1) -> None:
        """Learn one more task on random images, and make sure that learning really took place."""
        number = len(self.ended)
        batches = [(images(4, seed=10 * number + k), labels(4, classes)) for k in range(STEPS * accumulate)]
        before = self._gated()
        resize = None if classes == CLASSES and not self.ended else classes
        losses = learn(self.session, task, batches, how, num_classes=resize, accumulate=accumulate)
        self._check_learnt(task, losses, before)
        self.ended[task] = logits(self.session, task, self.probe)
        self._check_sensitive(self.ended[task], classes)

    def _gated(self) -> dict[str, Tensor]:
        found = {}
        for policy in self.session.plan.tensors:
            if policy.protection == "gated":
                found[policy.name] = self.session.model.get_parameter(policy.name).detach().clone()
        return found

    def _check_learnt(self, task: str, losses: Sequence[float], before: dict[str, Tensor]) -> None:
        assert all(map(math.isfinite, losses)), losses
        moved = [
            name for name, value in before.items() if not torch.equal(value, self.session.model.get_parameter(name))
        ]
        assert len(moved) > len(before) / 2, moved
        used = torch.cat(list(self.session.masks(task).values()))
        assert 0 < int(used.sum()) < used.numel()

    @staticmethod
    def _check_sensitive(ended: Tensor, classes: int) -> None:
        """Logits that are equal for all images, or not finite, could not show a leak."""
        assert ended.shape == (PROBES, classes)
        assert torch.isfinite(ended).all()
        assert (ended - ended[0])[1:].abs().amax(1).min() > 1e-4 * ended.abs().max()

    def changed(self) -> list[str]:
        """Return the tasks whose logits are not the same bits as when they ended."""
        return [t for t, before in self.ended.items() if not torch.equal(before, logits(self.session, t, self.probe))]
