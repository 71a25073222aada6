"""`fgadahat-hooks inspect`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from rich.console import Console

from fgadahat_hooks.cli.output import printable
from fgadahat_hooks.cli.run_tables import Bars
from fgadahat_hooks.summary.summary import read_summary
from tests.support.commands import call


def test_tasks_capacity_and_use_of_a_run(runs: Path) -> None:
    result = call("inspect", runs / "done")
    summary = read_summary(runs / "done")
    assert (result.status, result.err) == (0, "")
    lines = result.out.splitlines()
    for task, used in zip(summary.tasks, summary.use_after(), strict=True):
        row = next(line for line in lines if line.lstrip().startswith(str(task)))
        assert f"{summary.capacity[task]:.1%}" in row
        assert row.rstrip().endswith(f"{used:.0%}")
    assert "hat; on the update; targets all" in result.out
    assert "Verified. Tasks 'birds', 2, 'cars [bold]': logits bit-identical" in result.out
    assert "not finished" not in result.out


def test_an_interrupted_task(runs: Path) -> None:
    assert (
        "Task 'fish' is not finished: session.task('fish', resume=True) goes on." in call("inspect", runs / "begun").out
    )


def test_a_run_without_tasks(runs: Path) -> None:
    result = call("inspect", runs / "none")
    assert result.status == 0
    assert "no task is finished" in result.out
    assert "Not verified" in result.out


def test_json(runs: Path) -> None:
    result = call("inspect", runs / "done", "--json")
    found, summary = json.loads(result.out), read_summary(runs / "done")
    assert [task["id"] for task in found["tasks"]] == ["birds", 2, "cars [bold]"]
    assert [task["capacity"] for task in found["tasks"]] == list(summary.capacity.values())
    assert found["tasks"][1]["units"] == {layer: use[2] for layer, use in summary.unit_use().items()}
    assert found["accuracy"] == [[0.9, None, None], [0.8, 0.75, None], [0.7, None, 1.0]]
    assert found["verified"]["leaks"] == {}
    assert found["interrupted"] is None
    assert len(found["overlap"]) == 3
    assert json.loads(call("inspect", runs / "none", "--json").out)["verified"] is None
    assert json.loads(call("inspect", runs / "begun", "--json").out)["interrupted"] == "fish"


def test_names_cannot_command_the_terminal() -> None:
    assert printable("layer1.0.conv1") == "layer1.0.conv1"
    assert printable("\x1b[2Jgone") == r"'\x1b[2Jgone'"


@pytest.mark.parametrize(
    ("encoding", "bar", "heights"), [("utf-8", "██████░░░░░░", "·▁▅█"), ("ascii", "######......", ".059")]
)
def test_bars_in_any_encoding(
    encoding: str, bar: str, heights: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (tmp_path / "file").open("w", encoding=encoding) as file:
        bars = Bars(Console(file=file))
        assert bars.bar(0.5) == bar
        assert bars.heights([0.0, 0.01, 0.5, 1.0]) == heights
