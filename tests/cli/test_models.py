"""Models built from `--model`."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from torch import nn

from fgadahat_hooks.cli.models import make_model, read_arguments
from fgadahat_hooks.errors import BadCallError


def test_a_class_in_a_file_without_its_weights(nets: Path) -> None:
    model = make_model(f"{nets}:Net", {"width": 5})
    assert model.get_parameter("hidden.weight").shape == (5, 6)


def test_a_module_in_the_current_folder(nets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(nets.parent)
    monkeypatch.delitem(sys.modules, "some_nets", raising=False)
    path = list(sys.path)
    assert type(make_model("some_nets:Net", {})).__name__ == "Net"
    assert sys.path == path


def test_a_model_that_is_there_already(nets: Path) -> None:
    assert type(make_model(f"{nets}:Holder.net", {})).__name__ == "Net"
    with pytest.raises(BadCallError, match=r"Expected no arguments, because .* is a model already, but got width=3"):
        make_model(f"{nets}:Holder.net", {"width": 3})


def test_a_class_of_torch() -> None:
    assert isinstance(make_model("torch.nn:Linear", {"in_features": 2, "out_features": 3}), nn.Linear)


def test_weights_of_the_backbone_are_not_fetched() -> None:
    make_model("torchvision.models.segmentation:fcn_resnet50", {"num_classes": 2})


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("torch.nn.Linear", r"Expected --model as MODULE:NAME .* For example: torch.nn:Linear\."),
        ("resnet18", r"For example: torchvision.models:resnet18\."),
        ("not_there_at_all:Net", r"raised ModuleNotFoundError: .* It must be installed, or be in the current folder\."),
        ("not_there.py:Net", r"Expected --model to name a file, but there is none at 'not_there\.py'\."),
        ("torch.nn:Linaer", r"it has no 'Linaer'\. Did you mean 'Linear'\?"),
        ("torch.nn:Linear", r"to build a model from \(\), but it raised TypeError: .*--arg name=value"),
        ("builtins:print", r"Expected builtins:print to return a torch\.nn\.Module, but .* of class NoneType\."),
        ("torch.version:__version__", r"to name a class or a function, but .* is an object of class"),
    ],
)
def test_a_target_that_is_no_model_is_reported(target: str, message: str) -> None:
    with pytest.raises(BadCallError, match=message):
        make_model(target, {})


def test_arguments() -> None:
    pairs = ["depth=3", "act=relu", "sizes=[2, 2]", "pair=(1, 2)", "norm=None", "bias=true", "name='3'", "eq=a=b"]
    assert read_arguments(pairs, '{"depth": 1, "width": 2.5}') == {
        "depth": 3,
        "width": 2.5,
        "act": "relu",
        "sizes": [2, 2],
        "pair": (1, 2),
        "norm": None,
        "bias": True,
        "name": "3",
        "eq": "a=b",
    }


@pytest.mark.parametrize(
    ("pairs", "text", "message"),
    [
        (["depth"], None, r"Expected --arg as name=value, but got 'depth'"),
        (["3=4"], None, r"Expected --arg as name=value, but got '3=4'"),
        ([], "{", r"Expected --model-args as JSON, but got '{'"),
        ([], "[1]", r"Expected --model-args as a JSON object, but got '\[1\]'"),
    ],
)
def test_arguments_that_cannot_be_read_are_reported(pairs: list[str], text: str | None, message: str) -> None:
    with pytest.raises(BadCallError, match=message):
        read_arguments(pairs, text)
