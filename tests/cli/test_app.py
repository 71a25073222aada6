"""The command line as a whole: help, statuses, errors, the entry point."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import fgadahat_hooks as fh
from fgadahat_hooks import cli
from fgadahat_hooks.errors import CheckpointError
from tests.support.commands import call
from tests.support.tree import ROOT
from tests.test_imports import HEAVY

COMMANDS = ("schema", "validate", "plan", "inspect", "report", "convert")


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_examples(command: str) -> None:
    result = call(command, "--help")
    assert result.status == 0
    assert f"fgadahat-hooks {command} " in result.out


def test_help_lists_the_commands_and_what_a_status_means() -> None:
    result = call("--help")
    assert result.status == 0
    assert all(command in result.out for command in COMMANDS)
    assert "Exit status" in result.out
    assert "--install-completion" in result.out


def test_version() -> None:
    assert call("--version") == (0, f"fgadahat-hooks {fh.__version__}\n", "")


def test_a_wrong_call_ends_with_2() -> None:
    assert call("pictures").status == 2
    assert call("validate").status == 2


def test_a_failure_ends_with_1_and_a_message_alone(tmp_path: Path) -> None:
    result = call("inspect", tmp_path)
    assert (result.status, result.out) == (1, "")
    assert result.err.startswith("Error: Expected ")
    assert "Traceback" not in result.err


def test_what_the_system_refuses_is_reported(tmp_path: Path) -> None:
    result = call("schema", "-o", tmp_path / "no" / "schema.json")
    assert result.status == 1
    assert "the system refused: No such file or directory." in result.err


def test_debug_raises_the_error_itself(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError):
        call("--debug", "inspect", tmp_path)


def test_the_entry_point(tmp_path: Path) -> None:
    """`python -m` and the installed script call the same function."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "fgadahat_hooks", "validate", "spec.json"]
    (tmp_path / "spec.json").write_text(json.dumps({"norms": "freez"}), encoding="utf-8")
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert "Did you mean 'freeze'?" in done.stderr


def test_main_runs_the_commands(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["fgadahat-hooks", "--version"])
    with pytest.raises(SystemExit) as left:
        cli.main()
    assert left.value.code == 0
    assert capsys.readouterr().out == f"fgadahat-hooks {fh.__version__}\n"


def test_without_typer_it_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "typer", None)
    for name in [name for name in sys.modules if name.startswith("fgadahat_hooks.cli.")]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(SystemExit) as left:
        cli.main()
    assert left.value.code == 1
    assert capsys.readouterr() == ("", "fgadahat-hooks needs the package typer: pip install 'fgadahat-hooks[cli]'\n")


def test_another_module_that_is_absent_is_no_matter_of_installing(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("fgadahat_hooks.cli.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "fgadahat_hooks.cli.errors", None)
    with pytest.raises(ModuleNotFoundError):
        cli.main()


def test_help_schema_and_validate_load_nothing_heavy_but_torch(tmp_path: Path) -> None:
    (tmp_path / "spec.json").write_text("{}", encoding="utf-8")
    calls = [["--help"], ["schema", "-o", str(tmp_path / "schema.json")], ["validate", str(tmp_path / "spec.json")]]
    script = f"""
import io, sys
import torch
before = set(sys.modules)
from fgadahat_hooks.cli import main
kept, sys.stdout = sys.stdout, io.StringIO()
for call in {calls!r}:
    sys.argv = ["fgadahat-hooks", *call]
    try:
        main()
    except SystemExit as left:
        assert left.code == 0, call
print(*[name for name in {(*HEAVY, "jinja2")!r} if name in sys.modules and name not in before], file=kept)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT, check=False)
    assert (done.returncode, done.stderr, done.stdout.strip()) == (0, "", "")
