"""The pictures of the metrics."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import pytest
import torch

from fgadahat_hooks import metrics as fm
from fgadahat_hooks.errors import BadCallError, MissingDependencyError

LABELS = torch.tensor([0, 1, 1, 0])
TASKS = ("birds", 2)


@pytest.fixture(autouse=True)
def no_window() -> Iterator[None]:
    backend = mpl.get_backend()
    plt.switch_backend("Agg")
    yield
    plt.close("all")
    plt.switch_backend(backend)


def fed(metric: Any) -> Any:
    for learnt, task, wrong in (("birds", "birds", 0), (2, "birds", 1), (2, 2, 2)):
        preds = LABELS.clone()
        preds[:wrong] = 1 - preds[:wrong]
        metric.update(preds, LABELS, learnt=learnt, task=task)
    return metric


def texts(axes: Any) -> list[str]:
    return [text.get_text() for text in axes.texts]


def ticks(axis: Any) -> list[str]:
    return [label.get_text() for label in axis.get_ticklabels()]


def test_the_matrix_is_a_heat_map_with_the_tasks_names() -> None:
    figure, axes = fed(fm.AccuracyMatrix(TASKS)).plot()
    figure.canvas.draw()
    assert texts(axes) == ["1.00", "0.75", "0.50"]
    assert ticks(axes.xaxis) == ticks(axes.yaxis) == ["birds", "2"]
    assert (axes.get_ylabel(), axes.get_xlabel()) == ("after learning", "accuracy on")


def test_values_given_and_a_place_to_draw() -> None:
    metric = fm.AccuracyMatrix(12)
    figure, place = plt.subplots()
    found, axes = metric.plot([torch.zeros(12, 12), torch.eye(12)], place, add_text=False)
    figure.canvas.draw()
    assert (found, axes) == (None, place)
    assert texts(axes) == []
    assert texts(metric.plot(torch.eye(12))[1])[:2] == ["1.00", "0.00"]


def test_nothing_measured_can_be_drawn() -> None:
    figure, axes = fm.AccuracyMatrix(3).plot(torch.full((3, 3), torch.nan))
    assert figure is not None
    figure.canvas.draw()
    assert texts(axes) == []


def test_one_task_is_a_matrix_of_one_cell() -> None:
    metric = fm.AccuracyMatrix(1)
    metric.update(LABELS, LABELS, learnt=0, task=0)
    assert texts(metric.plot()[1]) == ["1.00"]


@pytest.mark.parametrize(
    "metric",
    [
        fm.AverageAccuracy(TASKS),
        fm.BackwardTransfer(TASKS),
        fm.Forgetting(TASKS),
        fm.Intransigence(TASKS, 0.9, "none"),
        fm.ForgettingRatio(TASKS, 0.9, 0.1),
    ],
    ids=lambda metric: type(metric).__name__,
)
def test_numbers(metric: Any) -> None:
    figure, axes = fed(metric).plot()
    figure.canvas.draw()
    assert axes.get_ylabel() == type(metric).__name__
    low, high = axes.get_ylim()
    assert metric.plot_lower_bound is None or low < metric.plot_lower_bound < metric.plot_upper_bound < high


def test_a_number_over_time() -> None:
    figure, axes = fm.AverageAccuracy(TASKS).plot([torch.tensor(0.9), torch.tensor(0.8), torch.tensor(torch.nan)])
    assert figure is not None
    figure.canvas.draw()
    assert axes.get_xlabel() == "Step"


MASKS = {"birds": {"fc": torch.tensor([1, 1, 0, 0])}, 2: {"fc": torch.tensor([0, 0, 0, 0])}}


def test_overlap_is_a_heat_map() -> None:
    metric = fm.MaskOverlap()
    metric.update(MASKS)
    figure, axes = metric.plot(labels=list(MASKS))
    assert figure is not None
    figure.canvas.draw()
    assert texts(axes) == ["1.00", "0.00"]
    assert ticks(axes.xaxis) == ["birds", "2"]
    assert ticks(metric.plot()[1].xaxis) == ["1", "2"]
    with pytest.raises(BadCallError) as caught:
        metric.plot(labels=["birds"])
    assert str(caught.value) == "Expected one label for each of 2 tasks, but got 1."


@pytest.mark.parametrize("make", [fm.MaskUse, fm.CumulativeMaskUse, fm.FreeUnitFraction])
def test_mask_use(make: type[fm.MaskMetric]) -> None:
    metric = make()
    metric.update(MASKS)
    figure, axes = metric.plot()
    assert figure is not None
    figure.canvas.draw()
    assert axes.get_ylabel() == make.__name__


@pytest.mark.parametrize("make", [fm.AccuracyMatrix, fm.AverageAccuracy])
def test_without_matplotlib_it_says_what_to_install(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    with pytest.raises(MissingDependencyError) as caught:
        fed(make(TASKS)).plot()
    assert str(caught.value) == "Plotting needs matplotlib. Install it with `pip install 'fgadahat-hooks[plot]'`."
