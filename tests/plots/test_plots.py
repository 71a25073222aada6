"""The figures draw the values of the run, and do not use pyplot."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

import fgadahat_hooks.plots
from fgadahat_hooks.errors import BadCallError, MissingDependencyError
from tests.support import runs

plots: Any = fgadahat_hooks.plots  # the stubs of matplotlib know less of artists than the tests do
ALL = [getattr(plots, name) for name in plots.__all__]


def texts(axes: Any) -> list[str]:
    return [text.get_text() for text in axes.texts]


def ticks(axis: Any) -> list[str]:
    return [label.get_text() for label in axis.get_ticklabels()]


def percents(values: Any) -> list[str]:
    return [f"{100 * value:.0f}" for value in torch.as_tensor(values).flatten().tolist() if value == value]


@pytest.mark.parametrize("plot", ALL)
def test_every_figure_can_be_written_and_is_unknown_to_pyplot(plot: Any, tmp_path: Path) -> None:
    before = plt.get_fignums()
    figure, axes = plot(runs.summary())
    figure.savefig(tmp_path / "figure.png")
    assert isinstance(figure, Figure)
    assert isinstance(figure.canvas, FigureCanvasAgg)
    assert axes.figure is figure
    assert plt.get_fignums() == before
    assert (tmp_path / "figure.png").stat().st_size > 1000


@pytest.mark.parametrize("plot", ALL)
def test_every_figure_can_be_drawn_among_others(plot: Any) -> None:
    figure = Figure()
    place = figure.subplots(1, 2)[1]
    assert plot(runs.summary(), ax=place) == (figure, place)
    part: Any = figure.subfigures(1, 1)
    inner = part.subplots()
    assert plot(runs.summary(), inner) == (figure, inner)


@pytest.mark.parametrize("plot", ALL)
def test_sessions_and_folders_will_do(plot: Any, tmp_path: Path) -> None:
    runs.session().save(tmp_path / "run", {"accuracy": runs.ACCURACY})
    needs = {"accuracy": runs.ACCURACY} if plot in (plots.accuracy_matrix, plots.stability_plasticity) else {}
    for source, options in ((runs.session(), needs), (tmp_path / "run", {})):
        axes = plot(source, **options)[1]
        assert texts(axes) == texts(plot(runs.summary())[1])


def test_the_accuracy_matrix() -> None:
    figure, axes = plots.accuracy_matrix(runs.summary())
    figure.canvas.draw()
    assert texts(axes) == ["90", "85", "80", "70", "80", "100"]
    assert ticks(axes.xaxis) == ticks(axes.yaxis) == [str(task) for task in runs.TASKS]
    assert (axes.get_ylabel(), axes.get_xlabel()) == ("after learning", "accuracy on, %")


def test_stability_and_plasticity() -> None:
    axes = plots.stability_plasticity(runs.summary())[1]
    learnt, end = (points.get_offsets()[:, 0].tolist() for points in axes.collections[1:])
    assert learnt == [0.9, 0.8, 1.0]
    assert end == [0.7, 0.8, 1.0]
    assert axes.get_title(loc="left") == "learning accuracy 90.0 %, backward transfer -10.0 points"
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["when learnt", "at the end"]
    one = plots.stability_plasticity(runs.summary("hat", 1))[1]
    assert one.get_title(loc="left") == "learning accuracy 90.0 %"


def test_capacity_and_use() -> None:
    run = runs.summary()
    axes = plots.capacity(run)[1]
    lines = {line.get_label(): line.get_ydata().tolist() for line in axes.get_lines()}
    assert lines == {"network capacity": list(run.capacity.values()), "units used": list(run.use_after())}
    unknown = plots.capacity(replace(run, capacity=dict.fromkeys(run.tasks)))[1]
    assert all(value != value for value in unknown.get_lines()[0].get_ydata())


def test_mask_use() -> None:
    run = runs.summary()
    axes = plots.mask_use(run)[1]
    assert texts(axes) == percents([list(use.values()) for use in run.unit_use().values()])
    assert ticks(axes.yaxis) == list(run.layers)


def test_mask_overlap() -> None:
    axes = plots.mask_overlap(runs.summary())[1]
    assert texts(axes) == percents(runs.summary().overlap())


def test_rates() -> None:
    run = runs.summary()
    axes = plots.rates(run)[1]
    weights = [name for name in run.rates["birds"] if name.endswith("weight")]
    assert ticks(axes.yaxis) == weights
    assert texts(axes) == percents([[run.rates[task][name] for task in run.tasks] for name in weights])


def test_importance() -> None:
    run = runs.summary()
    axes = plots.importance(run)[1]
    medians = [float(value.double().quantile(0.5)) for value in run.summed_importance.values()]
    assert axes.collections[2].get_offsets()[:, 0].tolist() == pytest.approx(medians)
    assert ticks(axes.yaxis) == list(run.summed_importance)


def test_large_runs_have_few_names_and_no_numbers() -> None:
    axes = plots.mask_use(runs.large(30, 200))[1]
    assert texts(axes) == []
    assert len(ticks(axes.yaxis)) == 50
    assert len(ticks(plots.importance(runs.large(30, 200))[1].yaxis)) == 50


def test_names_are_not_mathematics() -> None:
    run = replace(runs.summary("hat", 1), tasks=("$x_{",), masks={"$x_{": runs.summary().masks["birds"]})
    figure, axes = plots.mask_use(run)
    figure.canvas.draw()
    assert ticks(axes.xaxis) == [r"\$x_{"]


MISSING = [
    (plots.accuracy_matrix, ("hat", 2, False), "Expected accuracies, but got a run without any."),
    (plots.stability_plasticity, ("hat", 2, False), "Expected accuracies, but got a run without any."),
    (plots.capacity, ("hat", 0), "Expected a run with finished tasks, 1 at least, but got 0."),
    (plots.mask_use, ("hat", 0), "Expected a run with finished tasks, 1 at least, but got 0."),
    (plots.mask_overlap, ("hat", 1), "Expected a run with finished tasks, 2 at least, but got 1."),
    (plots.importance, ("hat", 2), "Expected a run that measures importance"),
]


@pytest.mark.parametrize(("plot", "run", "words"), MISSING, ids=[case[0].__name__ for case in MISSING])
def test_missing_data_is_reported(plot: Any, run: Any, words: str) -> None:
    with pytest.raises(BadCallError, match=words):
        plot(runs.summary(*run))


def test_rates_that_nobody_recorded() -> None:
    with pytest.raises(BadCallError, match="the adjustment rates after each task"):
        plots.rates(replace(runs.summary(), rates={}))


@pytest.mark.parametrize("plot", ALL)
def test_without_matplotlib_it_says_what_to_install(plot: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'fgadahat-hooks\[plot\]'"):
        plot(runs.summary())
