"""Lightning's callbacks that average weights: they copy the model when a fit begins, and write into it at its end."""

from __future__ import annotations

from collections.abc import Sequence

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import StochasticWeightAveraging

try:
    from lightning.pytorch.callbacks import WeightAveraging

    _AVERAGING: tuple[type[Callback], ...] = (StochasticWeightAveraging, WeightAveraging)
except ImportError:  # before Lightning 2.6
    _AVERAGING = (StochasticWeightAveraging,)


def copy_model_again(trainer: Trainer, pl_module: LightningModule, behind: Callback) -> None:
    """Let the averaging callbacks that stand before a callback copy the model anew: its head has another size now."""
    for callback in _split(trainer, behind)[0]:
        if isinstance(callback, _AVERAGING):
            callback.setup(trainer, pl_module, "fit")


def writes_later(trainer: Trainer, callback: Callback) -> bool:
    """Return whether a callback that stands behind another writes averaged weights when training ends."""
    return any(isinstance(other, _AVERAGING) for other in _split(trainer, callback)[1])


def _split(trainer: Trainer, callback: Callback) -> tuple[Sequence[Callback], Sequence[Callback]]:
    """Return the Trainer's callbacks before and behind one of them."""
    callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
    place = next((n for n, other in enumerate(callbacks) if other is callback), len(callbacks))
    return callbacks[:place], callbacks[place + 1 :]
