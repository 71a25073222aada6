"""`fgadahat-hooks validate`."""

from __future__ import annotations

from pathlib import Path

from tests.support.commands import call


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_good_specs(tmp_path: Path) -> None:
    one, two = write(tmp_path / "one.yaml", "{}"), write(tmp_path / "two.json", '{"norms": "freeze"}')
    assert call("validate", one, two) == (0, f"ok  {one}\nok  {two}\n", "")


def test_all_problems_of_all_files_are_reported(tmp_path: Path) -> None:
    good = write(tmp_path / "good.yaml", "norms: share")
    bad = write(tmp_path / "bad.yaml", "gates: {target: all}\nrest: [bold]\nimportance: {type: activation_ab}\n")
    result = call("validate", bad, good, tmp_path / "absent.yaml")
    assert (result.status, result.out) == (2, f"ok  {good}\n")
    assert f"The spec has 3 problems in {bad}:" in result.err
    assert "Did you mean 'targets'?" in result.err
    assert "got ['bold']" in result.err
    assert "Did you mean 'activation_abs'?" in result.err
    assert "absent.yaml:\n  expected a file, found none." in result.err
