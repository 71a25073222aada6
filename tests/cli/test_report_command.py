"""`fgadahat-hooks report`."""

from __future__ import annotations

import webbrowser
from pathlib import Path

import pytest

from fgadahat_hooks.cli.accuracy import read_accuracy
from fgadahat_hooks.errors import BadCallError
from tests.support.commands import call


def test_it_writes_a_file_and_opens_it(runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    monkeypatch.setattr(webbrowser, "open", opened.append)
    file = tmp_path / "report.html"
    result = call("report", runs / "done", "-o", file, "--open")
    assert result == (0, f"Wrote {file}\n", "")
    assert "birds" in file.read_text(encoding="utf-8")
    assert opened == [file.resolve().as_uri()]


def test_accuracies_from_a_file(runs: Path, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("0.5,,\n0.4321,0.6,\n0.3,0.5,0.7\n", encoding="utf-8")
    file = tmp_path / "report.html"
    assert call("report", runs / "done", "-o", file, "--accuracy", tmp_path / "a.csv").status == 0
    assert "43.2" in file.read_text(encoding="utf-8")


def test_accuracies_of_another_number_of_tasks_are_refused(runs: Path, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("[[0.5]]", encoding="utf-8")
    result = call("report", runs / "done", "-o", tmp_path / "report.html", "--accuracy", tmp_path / "a.json")
    assert result.status == 2
    assert "matrix of 3 x 3" in result.err
    assert not (tmp_path / "report.html").exists()


def test_accuracies_in_both_forms_are_the_same(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("1\n0.5, 0.25\n,,3e-1\n", encoding="utf-8")
    (tmp_path / "a.json").write_text("[[1], [0.5, 0.25], [null, null, 0.3]]", encoding="utf-8")
    assert read_accuracy(tmp_path / "a.csv") == read_accuracy(tmp_path / "a.json")


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.txt", "1", r"ends in \.json or \.csv, but got 'a\.txt'"),
        ("a.csv", "task 1,task 2\n", "line 1 has another cell"),
        ("a.json", "[1", "Expected valid JSON"),
    ],
)
def test_files_of_another_form_are_reported(name: str, text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8")
    with pytest.raises(BadCallError, match=message):
        read_accuracy(tmp_path / name)
