"""`fgadahat-hooks plan`."""

from __future__ import annotations

import io
import json
import re
import sys
from pathlib import Path

import pytest
import torch
from torchvision.models import resnet18

import fgadahat_hooks as fh
from fgadahat_hooks.cli.app import app
from tests.support.commands import call


class Terminal(io.StringIO):
    """A terminal that keeps what is written on it."""

    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


def test_three_mistakes_are_three_problems_with_suggestions(tmp_path: Path) -> None:
    spec = tmp_path / "spec.yaml"
    spec.write_text(
        "gates: {target: all}\nregularization: {factor: -1}\nimportance: {type: activation_ab}\n", encoding="utf-8"
    )
    result = call("plan", spec, "--model", "torchvision.models:resnet18", "--input", "3,224,224")
    assert (result.status, result.out) == (2, "")
    assert "The spec has 3 problems" in result.err
    assert "gates.target: expected a key among" in result.err
    assert "Did you mean 'targets'?" in result.err
    assert "regularization.factor: expected a finite number >= 0, got -1." in result.err
    assert "Did you mean 'activation_abs'?" in result.err


def test_the_table_of_resnet18() -> None:
    result = call("plan", "--model", "torchvision.models:resnet18", "--input", "3,64,64")
    expected = fh.plan(resnet18(weights=None), fh.preset("hat", tasks=3), torch.randn(2, 3, 64, 64))
    said = "Room for 10 tasks is assumed; write preset:hat,20 for another number.\n"
    assert result == (0, f"{expected}\n", said)
    assert "layer4.1.conv2" in result.out
    assert "Finished tasks keep their outputs bit for bit." in result.out


def test_json_is_all_there_is_on_standard_output(nets: Path) -> None:
    result = call("plan", "preset:fg_adahat,4", "-m", f"{nets}:Net", "-i", "6", "-a", "width=12", "--json")
    assert result.status == 0
    found = json.loads(result.out)
    assert [layer["units"] for layer in found["layers"]] == [12]
    assert {tensor["protection"] for tensor in found["tensors"]} == {"gated", "per_task"}
    assert found["heads"] == ["head"]
    assert found["leaks"]
    assert "this goes to standard error" in result.err


def test_a_pattern_that_fits_nothing_is_reported(nets: Path, tmp_path: Path) -> None:
    spec = tmp_path / "spec.yaml"
    spec.write_text("gates: {targets: ['hiden', 'layer9.*']}", encoding="utf-8")
    result = call("plan", spec, "-m", f"{nets}:Net", "-i", "6")
    assert (result.status, result.out) == (2, "")
    assert "found none" in result.err


def test_inputs_by_name_each_with_its_dtype(nets: Path) -> None:
    result = call("plan", "-m", f"{nets}:Words", "-i", "mask=9", "-i", "ids=9", "--dtype", "bool", "--dtype", "long")
    assert result.status == 0
    assert "heads: head" in result.out


def test_a_forward_that_raises_is_reported(nets: Path) -> None:
    result = call("plan", "-m", f"{nets}:Net", "-i", "7")
    assert (result.status, result.out) == (1, "")
    assert "The forward of Net raised RuntimeError" in result.err
    assert "--input, --dtype and --batch" in result.err


def test_an_unknown_preset_is_reported(nets: Path) -> None:
    result = call("plan", "preset:hot", "-m", f"{nets}:Net", "-i", "6")
    assert result.status == 2
    assert "Did you mean 'hat'?" in result.err
    assert "Expected a number of tasks" in call("plan", "preset:hat,x", "-m", f"{nets}:Net", "-i", "6").err


def on_a_terminal(monkeypatch: pytest.MonkeyPatch, columns: int, *arguments: str) -> str:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.delenv("NO_COLOR", raising=False)
    app(["plan", *arguments], standalone_mode=False)
    return terminal.getvalue()


def test_on_a_terminal_the_tables_have_colours(nets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = on_a_terminal(monkeypatch, 200, "preset:adahat", "-m", f"{nets}:Net", "-i", "6")
    assert "\x1b[32mgated" in text
    assert "\x1b[36mper_task" in text
    assert "\x1b[33mFinished tasks can change, because" in text
    assert "adjustment.mode: adahat" in text
    assert "fed by" in text


def test_a_narrow_terminal_shows_fewer_columns(nets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = on_a_terminal(monkeypatch, 80, "-m", f"{nets}:Net", "-i", "6")
    assert "fed by" not in text
    assert "Who feeds each layer is shown in a terminal of 110 columns or more" in text
    assert max(map(len, re.sub(r"\x1b\[[0-9;]*m", "", text).splitlines())) <= 80
