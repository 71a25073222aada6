"""The report file is written atomically."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from fgadahat_hooks.errors import BadCallError
from fgadahat_hooks.report import report
from fgadahat_hooks.report.page import page
from tests.support import runs


def test_a_session_a_folder_and_a_summary_give_the_same_report(tmp_path: Path) -> None:
    runs.session().save(tmp_path / "run", {"accuracy": runs.ACCURACY})
    one = report(runs.session(), tmp_path / "one.html", accuracy=runs.ACCURACY)
    two = report(str(tmp_path / "run"), os.fspath(tmp_path / "new" / "two.html"))
    three = report(runs.summary(), tmp_path / "three.html")
    assert one == tmp_path / "one.html"
    assert one.read_text(encoding="utf-8") == two.read_text(encoding="utf-8") == three.read_text(encoding="utf-8")
    assert {path.name for path in tmp_path.iterdir()} == {"run", "new", "one.html", "three.html"}


def test_the_default_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert report(runs.summary()) == Path("report.html")
    assert Path("report.html").read_text(encoding="utf-8") == page(runs.summary())


def full(*_: object) -> None:
    raise OSError(28, "No space left on device")


def test_a_report_that_fails_leaves_the_one_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = report(runs.summary(), tmp_path / "report.html")
    before = path.read_bytes()
    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(BadCallError, match="No space left on device"):
        report(runs.summary("hat"), path)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["report.html"]


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(BadCallError, match="but got the folder"):
        report(runs.summary(), tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(BadCallError, match="Expected to write the report to"):
        report(runs.summary(), tmp_path / "file" / "report.html")


def test_letters_that_no_file_can_hold(tmp_path: Path) -> None:
    path = report(replace(runs.summary(), model="\ud800.Net"), tmp_path / "report.html")
    assert "\\ud800.Net" in path.read_text(encoding="utf-8")
