"""The plots that a fit logs to TensorBoard."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger

from fgadahat_hooks.adapters.lightning import callbacks
from fgadahat_hooks.errors import BadCallError, MissingDependencyError
from tests.adapters.lightning_world import BATCHES, WARNINGS, Loader, attached, learner, trainer

pytestmark = WARNINGS
accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")


def images(folder: str) -> dict[str, list[Any]]:
    """Read the images back from an event file."""
    found = accumulator.EventAccumulator(folder, size_guidance={"images": 0})
    found.Reload()
    assert set(found.Tags()["images"]).isdisjoint(found.Tags()["scalars"])  # TensorBoard shows one kind a tag
    return {tag: found.Images(tag) for tag in found.Tags()["images"]}


def fit(spec: str, loggers: Any, *tasks: str, **options: Any) -> None:
    module = learner()
    session = attached(module, spec, callbacks=[])
    for number, task in enumerate(tasks):
        parts = callbacks(session, task=task, **{"plots": True, **options})
        trainer(parts, logger=loggers, max_epochs=1, log_every_n_steps=3).fit(module, Loader(number))


def test_plots_are_images_in_the_event_file(tmp_path: Path) -> None:
    logger = TensorBoardLogger(tmp_path)
    fit("fg_adahat", [CSVLogger(tmp_path / "csv"), logger], "birds", "cars")
    found = images(logger.log_dir)
    both = {"hat/plots/capacity", "hat/plots/mask_use", "hat/plots/importance", "hat/plots/rates"}
    assert {tag for tag, events in found.items() if len(events) == 2} == both
    assert len(found["hat/plots/mask_overlap"]) == 1
    for tag, events in found.items():
        assert all(event.step == BATCHES - 1 for event in events), tag
        assert all(event.encoded_image_string.startswith(b"\x89PNG") and event.width > 200 for event in events), tag


def test_runs_without_importance_send_none(tmp_path: Path) -> None:
    logger = TensorBoardLogger(tmp_path)
    fit("hat", logger, "birds")
    assert set(images(logger.log_dir)) == {"hat/plots/capacity", "hat/plots/mask_use", "hat/plots/rates"}


def test_nothing_is_drawn_unless_asked_for(tmp_path: Path) -> None:
    logger = TensorBoardLogger(tmp_path)
    fit("hat", logger, "birds", plots=False)
    assert images(logger.log_dir) == {}


@pytest.mark.parametrize("name", ["CSVLogger", "no logger"])
def test_loggers_that_take_no_figures_are_reported_before_training(name: str, tmp_path: Path) -> None:
    logger = CSVLogger(tmp_path) if name == "CSVLogger" else False
    with pytest.raises(BadCallError, match=f"Expected a TensorBoardLogger .* but got {name}"):
        fit("hat", logger, "birds")


def test_without_matplotlib_it_is_reported_before_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.util.find_spec
    target = "fgadahat_hooks.adapters.lightning.plot_images.find_spec"
    monkeypatch.setattr(target, lambda name: None if name == "matplotlib" else real(name))
    with pytest.raises(MissingDependencyError, match=r"pip install 'fgadahat-hooks\[plot\]'"):
        fit("hat", TensorBoardLogger(tmp_path), "birds")


def test_a_trial_run_needs_no_logger(tmp_path: Path) -> None:
    module = learner()
    session = attached(module, callbacks=[])
    parts = callbacks(session, task="birds", plots=True)
    trainer(parts, logger=TensorBoardLogger(tmp_path), fast_dev_run=True).fit(module, Loader(0))
    assert session.tasks == ()
