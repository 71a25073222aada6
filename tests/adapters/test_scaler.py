"""A gradient scaler in a plain loop: steps that it skips do not count."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn import functional as F
from torch.optim import AdamW, Optimizer

import fgadahat_hooks as fh
from tests.adapters.ddp_worlds import SCALED, images, normed

TOO_LARGE = 2.0**30
"""A first scale that overflows for some steps."""


class Steps(fh.Callback):
    """Counts the events of steps."""

    def __init__(self) -> None:
        self.counts = dict.fromkeys(("ready", "before", "after"), 0)

    def on_gradients_ready(self, context: fh.TaskContext, optimizer: Optimizer) -> None:
        self.counts["ready"] += 1

    def on_before_optimizer_step(self, context: fh.TaskContext, optimizer: Optimizer) -> None:
        self.counts["before"] += 1

    def on_after_optimizer_step(self, context: fh.TaskContext, optimizer: Optimizer) -> None:
        self.counts["after"] += 1


@pytest.mark.parametrize("clip", [False, True], ids=["", "clipped"])
@pytest.mark.parametrize("fused", [False, True], ids=["", "fused"])
def test_overflown_steps_do_not_count(fused: bool, clip: bool) -> None:
    steps = Steps()
    callbacks: list[fh.Callback] = [
        fh.ImportanceCallback(SCALED["importance"]),
        fh.GradientAdjustCallback(SCALED["adjustment"]),
        steps,
    ]
    session = fh.attach(normed(), SCALED, images(2, 0), callbacks)
    scaler = torch.amp.GradScaler("cpu", init_scale=TOO_LARGE)
    left_out = 0
    with session.task("a") as task:
        groups: Any = session.parameter_groups(lr=1e-3)
        optimizer = task.protect(AdamW(groups, fused=fused))
        for step, y in task.batches([(k, torch.arange(8) % 3) for k in range(24)]):
            optimizer.zero_grad()
            with torch.autocast("cpu", torch.float16):
                out = session.model(images(8, step))
            scaler.scale(F.cross_entropy(out.float(), y) + task.regularization()).backward()
            if clip:
                scaler.unscale_(optimizer)
                task.gradients_ready(optimizer)
                torch.nn.utils.clip_grad_norm_(session.model.parameters(), 0.5)
            before = scaler.get_scale()
            scaler.step(optimizer)
            scaler.update()
            left_out += scaler.get_scale() < before
    assert 0 < left_out < 20
    assert steps.counts == dict.fromkeys(steps.counts, 24 - left_out)
    assert all(bool(torch.isfinite(p).all()) for p in session.model.parameters())
    assert all(bool(torch.isfinite(v).all()) for v in session.importance("a").values())
