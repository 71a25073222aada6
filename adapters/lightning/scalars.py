"""Log scalars of a running task to the Trainer's loggers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from lightning.pytorch import Trainer

import fgadahat_hooks as fh

if TYPE_CHECKING:
    from fgadahat_hooks import Task


class ScalarLogger:
    """Logs scalars at the steps at which Lightning itself logs."""

    def __init__(self) -> None:
        """Start with no step logged."""
        self._last_step = -1

    def log(self, trainer: Trainer, session: fh.Session, task: Task) -> None:
        """Log if a new step was made and `log_every_n_steps` divides it."""
        step = trainer.global_step
        if not trainer.loggers or step == self._last_step or step % trainer.log_every_n_steps != 0:  # type: ignore[attr-defined]
            return
        self._last_step = step
        if trainer.is_global_zero:
            scalars = task_scalars(session, task)
            for logger in trainer.loggers:
                logger.log_metrics(scalars, step=step - 1)  # Lightning counts logged steps from 0


def task_scalars(session: fh.Session, task: Task) -> dict[str, float]:
    """Return the scalars of a running task.

    Returns:
        `hat/scale`: gate scale `s`. `hat/mask_use`: share of units that the hard mask keeps. `hat/regularization`: the
        sparsity term as added to the loss. `hat/capacity`: mean adjustment rate over all gated weights and
        biases, and `hat/rate/<weight>` that of each gated weight.
    """
    with torch.no_grad():
        used = torch.cat([embedding > 0 for embedding in session.embeddings.values()])
        scalars = {
            "hat/scale": task.scale,
            "hat/mask_use": float(used.double().mean()),
            "hat/regularization": float(task.regularization()),
            "hat/capacity": session.capacity(),
        }
    rates = {f"hat/rate/{n}": rate for n, rate in session.mean_rates().items() if n.endswith(".weight")}
    return scalars | rates
