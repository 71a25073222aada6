"""Build the model named on the command line: import `module:attribute` or `file.py:attribute`, and call it."""

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
"""Optional arguments that make a factory download weights, and their values unless the user sets them."""


def make_model(target: str, arguments: Mapping[str, Any]) -> nn.Module:
    """Import `target` and call it, unless it is a model already; nothing is downloaded.

    Args:
        target: `package.module:attribute` or `path/file.py:attribute`; the current folder is searched too.
        arguments: Keyword arguments for the call.

    Raises:
        BadCallError: The target cannot be imported or called, or does not return a `torch.nn.Module`.
    """
    module_path, colon, attribute = target.rpartition(":")
    if not (colon and module_path and attribute):
        example = ":".join(target.rsplit(".", 1)) if "." in target else "torchvision.models:resnet18"
        raise BadCallError(
            f"Expected --model as MODULE:NAME or FILE.py:NAME, but got {target!r}. For example: {example}."
        )
    with _current_folder_on_path(), redirect_stdout(sys.stderr):  # standard output is reserved for the plan
        with _garbage_collection_off():
            module = _import_module(module_path)
        return _build_model(_resolve_attribute(module, module_path, attribute), target, arguments)


def move_model(model: nn.Module, device: str) -> nn.Module:
    """Move a model to a device by its name.

    Raises:
        BadCallError: There is no such device.
    """
    try:
        return model.to(device)
    except (AssertionError, RuntimeError) as error:
        raise BadCallError(
            f"Expected --device as cpu, cuda, cuda:1 or another that torch has here, but got {device!r}."
        ) from error


def read_arguments(pairs: Iterable[str], text: str | None) -> dict[str, Any]:
    """Return keyword arguments from `name=value` pairs and a JSON object; pairs win.

    A value is read as JSON (`true`, `[2, 2]`), else as a Python literal (`None`, `(2, 2)`), else as text.

    Raises:
        BadCallError: A pair or the JSON text is not valid.
    """
    arguments = _parse_json(text) if text is not None else {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not name.isidentifier():
            raise BadCallError(f"Expected --arg as name=value, but got {pair!r}. For example: --arg num_classes=10.")
        arguments[name] = _parse_value(value)
    return arguments


def _parse_json(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError as error:
        raise BadCallError(f"Expected --model-args as JSON, but got {text!r} ({error}).") from None
    if not isinstance(found, dict):
        raise BadCallError(
            f"Expected --model-args as a JSON object, but got {text!r}. Write '{{\"num_classes\": 10}}'."
        )
    return found


def _parse_value(text: str) -> Any:
    for read in (json.loads, ast.literal_eval):
        try:
            return read(text)
        except (ValueError, SyntaxError):
            continue
    return text


@contextmanager
def _current_folder_on_path() -> Iterator[None]:
    """Search the current folder first, as `python` does and an installed command does not."""
    here = str(Path.cwd())
    sys.path.insert(0, here)
    try:
        yield
    finally:
        if here in sys.path:
            sys.path.remove(here)


@contextmanager
def _garbage_collection_off() -> Iterator[None]:
    """Switch garbage collection off: importing a large library then takes two thirds of the time."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def _import_module(path: str) -> ModuleType:
    try:
        return _import_file(Path(path)) if path.endswith(".py") else importlib.import_module(path)
    except BadCallError:
        raise
    except Exception as error:
        raise BadCallError(
            f"Expected --model to name a module that can be imported, but {path!r} raised {type(error).__name__}: "
            f"{error}. It must be installed, or be in the current folder."
        ) from error


def _import_file(file: Path) -> ModuleType:
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


def _resolve_attribute(module: ModuleType, module_path: str, dotted: str) -> Any:
    found: Any = module
    for name in dotted.split("."):
        if not hasattr(found, name):
            public = [known for known in dir(found) if not known.startswith("_")]
            raise BadCallError(
                f"Expected --model to name something in {module_path}, but it has no {name!r}.{suggest(name, public)}"
            )
        found = getattr(found, name)
    return found


def _build_model(factory: Any, target: str, arguments: Mapping[str, Any]) -> nn.Module:
    if isinstance(factory, nn.Module):
        if arguments:
            raise BadCallError(
                f"Expected no arguments, because {target} is a model already, but got {_as_call(arguments)}."
            )
        return factory
    if not callable(factory):
        raise BadCallError(
            f"Expected --model to name a class or a function, but {target} is an object of class {_class_of(factory)}."
        )
    keywords = {**_offline_defaults(factory), **arguments}
    try:
        model = factory(**keywords)
    except Exception as error:
        raise BadCallError(
            f"Expected {target} to build a model from ({_as_call(keywords)}), but it raised "
            f"{_class_of(error)}: {error}. Pass its arguments with --arg name=value or --model-args."
        ) from error
    if not isinstance(model, nn.Module):
        raise BadCallError(
            f"Expected {target} to return a torch.nn.Module, but it returned an object of class {_class_of(model)}."
        )
    return model


def _offline_defaults(factory: Any) -> dict[str, object]:
    try:
        parameters = inspect.signature(factory).parameters
    except (TypeError, ValueError):  # a built-in without a signature
        return {}
    return {
        name: value
        for name, value in NO_DOWNLOAD.items()
        if name in parameters and parameters[name].default is not inspect.Parameter.empty
    }


def _class_of(value: object) -> str:
    return type(value).__name__


def _as_call(arguments: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={value!r}" for name, value in arguments.items())
