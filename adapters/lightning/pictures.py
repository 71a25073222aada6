"""The plots of a run as images for TensorBoard."""

from __future__ import annotations

from importlib.util import find_spec

from lightning.pytorch import Trainer
from lightning.pytorch.loggers import TensorBoardLogger

from fgadahat_hooks import Session, plots, summary
from fgadahat_hooks.errors import BadCallError, MissingDependencyError


def check_pictures(trainer: Trainer) -> None:
    """Tell at once, and on every process, what would keep the plots from being drawn after hours of training.

    Raises:
        BadCallError: No logger of the Trainer takes figures.
        MissingDependencyError: matplotlib is not installed.
    """
    if not _takers(trainer) and not trainer.fast_dev_run:  # type: ignore[attr-defined]
        names = ", ".join(type(logger).__name__ for logger in trainer.loggers) or "no logger"
        raise BadCallError(
            f"Expected a TensorBoardLogger for TaskCallback(..., plots=True), but got {names}. Pass "
            "Trainer(logger=TensorBoardLogger(...)), or leave plots=True out."
        )
    if find_spec("matplotlib") is None:
        raise MissingDependencyError(
            "TaskCallback(..., plots=True) needs matplotlib. Install it with `pip install 'fgadahat-hooks[plot]'`."
        )


def send(trainer: Trainer, session: Session) -> None:
    """Send the plots of a session whose task has just ended, from the main process."""
    takers = _takers(trainer)
    if not trainer.is_global_zero or not takers:
        return
    run = summary.summarize(session)
    for name in _shown(run):
        figure, _ = getattr(plots, name)(run)
        for logger in takers:
            # Steps are counted from 0, as Lightning and the numbers of this callback count them; a number and an image
            # of one tag would hide each other.
            logger.experiment.add_figure(f"hat/plots/{name}", figure, max(trainer.global_step - 1, 0), close=False)


def _takers(trainer: Trainer) -> list[TensorBoardLogger]:
    return [logger for logger in trainer.loggers if isinstance(logger, TensorBoardLogger)]


def _shown(run: summary.RunSummary) -> list[str]:
    """Return the plots for which there is something to show."""
    shown = {
        "capacity": True,
        "mask_use": True,
        "mask_overlap": len(run.tasks) > 1,
        "importance": bool(run.summed_importance),
        "rates": any(run.rates.values()),
    }
    return [name for name, there in shown.items() if there and run.layers]
