"""How long a fit will be, as far as its Trainer knows."""

from __future__ import annotations

from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import EarlyStopping, Timer


def length_of_fit(trainer: Trainer, own_epochs: bool) -> dict[str, int]:
    """Return `epochs` or `steps` of a fit; empty if neither is bounded, or if it may end early.

    Args:
        trainer: The Trainer, which has its dataloaders.
        own_epochs: Whether gates are annealed over the Trainer's epochs.
    """
    if any(isinstance(callback, EarlyStopping | Timer) for callback in trainer.callbacks):  # type: ignore[attr-defined]
        return {}
    if trainer.max_steps > 0:
        return {"steps": int(min(trainer.estimated_stepping_batches, trainer.max_steps))}
    epochs = trainer.max_epochs
    return {"epochs": epochs} if own_epochs and epochs is not None and epochs > 0 else {}
