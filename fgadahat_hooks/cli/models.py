"""The model that the command line names: `module:attribute` or `file.py:attribute`, imported and called."""

from __future__ import annotations

import ast
import gc
import importlib
import inspect
import json
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

from fgadahat_hooks.errors import BadCallError
from fgadahat_hooks.registry import suggest

NO_DOWNLOAD: Mapping[str, object] = {
    "weights": None,
    "weights_backbone": None,
    "pretrained": False,
    "pretrained_backbone": False,
}
"""Optional arguments that make a factory fetch values, and what they get unless the user says otherwise."""


def make_model(target: str, arguments: Mapping[str, Any]) -> nn.Module:
    """Import what `target` names and, unless it is a module already, call it; nothing is downloaded.

    Args:
        target: `package.module:attribute` or `path/file.py:attribute`; the folder one stands in is looked into too.
        arguments: Keyword arguments of the call.

    Raises:
        BadCallError: It cannot be imported or called, or gives something else than a module.
    """
    place, colon, attribute = target.rpartition(":")
    if not (colon and place and attribute):
        example = ":".join(target.rsplit(".", 1)) if "." in target else "torchvision.models:resnet18"
        raise BadCallError(
            f"Expected --model as MODULE:NAME or FILE.py:NAME, but got {target!r}. For example: {example}."
        )
    with _here_on_the_path(), redirect_stdout(sys.stderr):  # standard output is the plan's
        with _without_collecting():
            module = _module(place)
        return _called(_attribute(module, place, attribute), target, arguments)


def read_arguments(pairs: Iterable[str], text: str | None) -> dict[str, Any]:
    """Return keyword arguments from `name=value` pairs and a JSON object; pairs win.

    A value is JSON (`true`, `[2, 2]`), a Python literal (`None`, `(2, 2)`), or else text.

    Raises:
        BadCallError: Something in them cannot be read.
    """
    arguments = _from_json(text) if text is not None else {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not name.isidentifier():
            raise BadCallError(f"Expected --arg as name=value, but got {pair!r}. For example: --arg num_classes=10.")
        arguments[name] = _value(value)
    return arguments


def _from_json(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError as error:
        raise BadCallError(f"Expected --model-args as JSON, but got {text!r} ({error}).") from None
    if not isinstance(found, dict):
        raise BadCallError(
            f"Expected --model-args as a JSON object, but got {text!r}. Write '{{\"num_classes\": 10}}'."
        )
    return found


def _value(text: str) -> Any:
    for read in (json.loads, ast.literal_eval):
        try:
            return read(text)
        except (ValueError, SyntaxError):
            continue
    return text


@contextmanager
def _here_on_the_path() -> Iterator[None]:
    """Look into the current folder first, as `python` does and an installed command does not."""
    here = str(Path.cwd())
    sys.path.insert(0, here)
    try:
        yield
    finally:
        if here in sys.path:
            sys.path.remove(here)


@contextmanager
def _without_collecting() -> Iterator[None]:
    """Let no garbage be looked for: a large library is imported in two thirds of the time."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def _module(place: str) -> ModuleType:
    try:
        return _from_file(Path(place)) if place.endswith(".py") else importlib.import_module(place)
    except BadCallError:
        raise
    except Exception as error:
        raise BadCallError(
            f"Expected --model to name a module that can be imported, but {place!r} raised {type(error).__name__}: "
            f"{error}. It must be installed, or be in the current folder."
        ) from error


def _from_file(file: Path) -> ModuleType:
    if not file.is_file():
        raise BadCallError(f"Expected --model to name a file, but there is none at {str(file)!r}.")
    spec = spec_from_file_location(file.stem, file)
    if spec is None or spec.loader is None:
        raise BadCallError(f"Expected --model to name a Python file, but got {str(file)!r}.")
    module = module_from_spec(spec)
    sys.modules.setdefault(file.stem, module)  # so that classes in it can be pickled and copied
    sys.path.insert(0, str(file.parent.resolve()))
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(file.parent.resolve()))
    return module


def _attribute(module: ModuleType, place: str, path: str) -> Any:
    found: Any = module
    for name in path.split("."):
        if not hasattr(found, name):
            public = [known for known in dir(found) if not known.startswith("_")]
            raise BadCallError(
                f"Expected --model to name something in {place}, but it has no {name!r}.{suggest(name, public)}"
            )
        found = getattr(found, name)
    return found


def _called(found: Any, target: str, arguments: Mapping[str, Any]) -> nn.Module:
    if isinstance(found, nn.Module):
        if arguments:
            raise BadCallError(
                f"Expected no arguments, because {target} is a model already, but got {_said(arguments)}."
            )
        return found
    if not callable(found):
        raise BadCallError(
            f"Expected --model to name a class or a function, but {target} is an object of class {_class(found)}."
        )
    given = {**_kept_offline(found), **arguments}
    try:
        model = found(**given)
    except Exception as error:
        raise BadCallError(
            f"Expected {target} to build a model from ({_said(given)}), but it raised {type(error).__name__}: {error}. "
            "Pass its arguments with --arg name=value or --model-args."
        ) from error
    if not isinstance(model, nn.Module):
        raise BadCallError(
            f"Expected {target} to return a torch.nn.Module, but it returned an object of class {_class(model)}."
        )
    return model


def _kept_offline(factory: Any) -> dict[str, object]:
    try:
        parameters = inspect.signature(factory).parameters
    except (TypeError, ValueError):  # built in, without a signature
        return {}
    return {
        name: value
        for name, value in NO_DOWNLOAD.items()
        if name in parameters and parameters[name].default is not inspect.Parameter.empty
    }


def _class(value: object) -> str:
    return type(value).__name__


def _said(arguments: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={value!r}" for name, value in arguments.items())
