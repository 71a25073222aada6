"""Log the plots of a run to TensorBoard as images."""

from __future__ import annotations

from importlib.util import find_spec

from lightning.pytorch import Trainer
from lightning.pytorch.loggers import TensorBoardLogger

from fgadahat_hooks import Session, plots, summary
from fgadahat_hooks.errors import BadCallError, MissingDependencyError


def check_plot_logger(trainer: Trainer) -> None:
    """Check before training, on every process, that the plots can be drawn and logged after it.

    Raises:
        BadCallError: The Trainer has no TensorBoardLogger.
        MissingDependencyError: matplotlib is not installed.
    """
    if not _tensorboard_loggers(trainer) and not trainer.fast_dev_run:  # type: ignore[attr-defined]
        names = ", ".join(type(logger).__name__ for logger in trainer.loggers) or "no logger"
        raise BadCallError(
            f"Expected a TensorBoardLogger for TaskCallback(..., plots=True), but got {names}. Pass "
            "Trainer(logger=TensorBoardLogger(...)), or leave plots=True out."
        )
    if find_spec("matplotlib") is None:
        raise MissingDependencyError(
            "TaskCallback(..., plots=True) needs matplotlib. Install it with `pip install 'fgadahat-hooks[plot]'`."
        )


def log_plots(trainer: Trainer, session: Session) -> None:
    """Log the plots of a session whose task has just ended, on the main process only."""
    loggers = _tensorboard_loggers(trainer)
    if not trainer.is_global_zero or not loggers:
        return
    run = summary.summarize(session)
    for name in _available_plots(run):
        figure, _ = getattr(plots, name)(run)
        for logger in loggers:
            # Steps count from 0, as in Lightning and for the scalars of this callback. Tags differ from those of the
            # scalars: TensorBoard hides one of a scalar and an image under the same tag.
            logger.experiment.add_figure(f"hat/plots/{name}", figure, max(trainer.global_step - 1, 0), close=False)


def _tensorboard_loggers(trainer: Trainer) -> list[TensorBoardLogger]:
    return [logger for logger in trainer.loggers if isinstance(logger, TensorBoardLogger)]


def _available_plots(run: summary.RunSummary) -> list[str]:
    """Return the names of the plots for which the run has data."""
    available = {
        "capacity": True,
        "mask_use": True,
        "mask_overlap": len(run.tasks) > 1,
        "importance": bool(run.summed_importance),
        "rates": any(run.rates.values()),
    }
    return [name for name, has_data in available.items() if has_data and run.layers]
