"""Figures of a running task for the Trainer's loggers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from lightning.pytorch import Trainer

import fgadahat_hooks as fh

if TYPE_CHECKING:
    from fgadahat_hooks import Task


class Figures:
    """Logs at the steps at which Lightning itself logs."""

    def __init__(self) -> None:
        """Nothing is logged yet."""
        self._last = -1

    def log(self, trainer: Trainer, session: fh.Session, task: Task) -> None:
        """Log, if a step was made and its turn has come."""
        step = trainer.global_step
        if not trainer.loggers or step == self._last or step % trainer.log_every_n_steps != 0:  # type: ignore[attr-defined]
            return
        self._last = step
        if trainer.is_global_zero:
            figures = look(session, task)
            for logger in trainer.loggers:
                logger.log_metrics(figures, step=step - 1)  # steps that Lightning logs are counted from 0


def look(session: fh.Session, task: Task) -> dict[str, float]:
    """Return the figures of a running task.

    Returns:
        `hat/scale`: gate scale `s`. `hat/mask_use`: share of units that the hard mask has on. `hat/regularization`: the
        sparsity term as it is added to the loss. `hat/capacity`: mean adjustment rate over all gated weights and
        biases, and `hat/rate/<weight>` that of each gated weight.
    """
    with torch.no_grad():
        on = torch.cat([embedding > 0 for embedding in session.embeddings.values()])
        figures = {
            "hat/scale": task.scale,
            "hat/mask_use": float(on.double().mean()),
            "hat/regularization": float(task.regularization()),
            "hat/capacity": session.capacity(),
        }
    rates = {f"hat/rate/{n}": rate for n, rate in session.mean_rates().items() if n.endswith(".weight")}
    return figures | rates
