"""Reads and writes specs as JSON or YAML files, chosen by suffix, in UTF-8."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic_core import PydanticSerializationError

from fgadahat_hooks import registry
from fgadahat_hooks.errors import Problem, SpecError
from fgadahat_hooks.registry import suggest
from fgadahat_hooks.spec.attach_spec import AttachSpec, to_spec
from fgadahat_hooks.spec.errors import short_repr

if TYPE_CHECKING:
    import yaml

T = TypeVar("T")

# YAML 1.1 reads `1e-6` as a string, because it has no decimal point; specs have many such numbers.
_YAML_FLOAT = re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$")


def load_spec(path: str | os.PathLike[str] | Mapping[str, Any]) -> AttachSpec:
    """Read a spec from a `.json`, `.yaml` or `.yml` file, or from a mapping that another reader returned.

    Raises:
        SpecError: The file cannot be read, or its spec has problems; all are listed, with the file's name.
    """
    if isinstance(path, Mapping):
        return to_spec(path)
    data = read_mapping(path)
    try:
        return to_spec(data)
    except SpecError as error:
        raise SpecError(error.problems, os.fspath(path)) from None


def read_mapping(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read a mapping from a `.json`, `.yaml` or `.yml` file.

    Raises:
        SpecError: The file cannot be read, has duplicate keys, or does not hold a mapping.
    """
    file = Path(path)
    read = _for_suffix(file, {".json": _read_json, ".yaml": _read_yaml, ".yml": _read_yaml})
    try:
        duplicates: list[Problem] = []
        data = read(_read_text(file), duplicates)
        if duplicates:
            raise SpecError(duplicates)
        if not isinstance(data, dict):
            raise SpecError(
                [Problem("", f"expected a mapping at the top, got {short_repr(data)}.{_hint_if_empty(data)}")]
            )
    except SpecError as error:
        raise SpecError(error.problems, str(file)) from None
    return data


def dump_spec(spec: AttachSpec, path: str | os.PathLike[str]) -> None:
    """Write a spec, with all its defaults, to a `.json`, `.yaml` or `.yml` file.

    Args:
        spec: The spec.
        path: Where to write; an existing file is replaced.

    Raises:
        SpecError: The suffix is unknown, the spec holds values that a file cannot, or the file cannot be written.
    """
    file = Path(path)
    write = _for_suffix(file, {".json": _write_json, ".yaml": yaml_text, ".yml": yaml_text})
    text = write(_to_plain_data(to_spec(spec), file))
    try:
        file.write_text(text, encoding="utf-8")
    except OSError as error:
        raise _file_error(file, f"cannot be written: {error.strerror}.") from None


def json_schema() -> dict[str, Any]:
    """Return the JSON schema of a spec file, for editors and other tools."""
    schema = AttachSpec.model_json_schema()
    if len(registry.measures):
        # The model has no such list, as measures can be registered later; the schema lists those registered now.
        schema["$defs"]["ImportanceSpec"]["properties"]["type"]["enum"] = list(registry.measures.names())
    return schema


def _file_error(file: Path, text: str) -> SpecError:
    return SpecError([Problem("", text)], str(file))


def _for_suffix(file: Path, table: Mapping[str, T]) -> T:
    try:
        return table[file.suffix.lower()]
    except KeyError:
        raise _file_error(file, f"expected a file name that ends in {', '.join(table)}, got {file.name!r}.") from None


def _read_text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        siblings = [other.name for other in file.parent.glob("*")] if file.parent.is_dir() else []
        raise _file_error(file, f"expected a file, found none.{suggest(file.name, siblings)}") from None
    except UnicodeDecodeError as error:
        raise _file_error(file, f"expected UTF-8 text, got other bytes at offset {error.start}.") from None
    except OSError as error:
        raise _file_error(file, f"cannot be read: {error.strerror}.") from None


def _hint_if_empty(data: object) -> str:
    return " The file is empty; write {} for a spec of defaults." if data is None else ""


def _duplicate_key(key: object, line: int | None = None) -> Problem:
    where = f"line {line}" if line else ""
    return Problem(where, f"expected each key once, got {short_repr(key)} again. Remove one of the two.")


def _syntax_error(line: int, column: int, text: str) -> SpecError:
    return SpecError([Problem(f"line {line}, column {column}", text)])


def _read_json(text: str, duplicates: list[Problem]) -> object:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        data: dict[str, Any] = {}
        for key, value in pairs:
            if key in data:
                duplicates.append(_duplicate_key(key))
            data[key] = value
        return data

    try:
        return json.loads(text.strip() or "null", object_pairs_hook=unique)
    except json.JSONDecodeError as error:
        raise _syntax_error(error.lineno, error.colno, f"expected valid JSON ({error.msg}).") from None
    except RecursionError:
        raise SpecError([Problem("", "expected JSON of a few levels, got too many.")]) from None
    except ValueError as error:  # an integer of thousands of digits
        raise SpecError([Problem("", f"expected valid JSON ({error}).")]) from None


def _read_yaml(text: str, duplicates: list[Problem]) -> object:
    import yaml

    try:
        # The loader is a subclass of yaml's safe one, and its two changes keep it safe.
        data = yaml.load(text, Loader=_yaml_loader(duplicates))  # noqa: S506
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
        reason = ", ".join(filter(None, (error.context, error.problem)))
        raise _syntax_error(line, column, f"expected valid YAML ({reason}).") from None
    except (yaml.YAMLError, ValueError) as error:
        raise SpecError([Problem("", f"expected valid YAML ({' '.join(str(error).split())}).")]) from None
    except RecursionError:
        raise SpecError([Problem("", "expected YAML of a few levels, got too many.")]) from None
    # The loader visits the keys of an outer mapping before those of an inner one; sort by line.
    duplicates.sort(key=lambda problem: int(problem.path.removeprefix("line ")))
    return data


def _yaml_loader(duplicates: list[Problem]) -> type[yaml.SafeLoader]:
    """Return a safe loader that reads `1e-6` as a number and appends a problem for each duplicate key."""
    import yaml

    class Loader(yaml.SafeLoader):
        def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
            seen: set[object] = set()
            for key, _ in node.value:
                if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
                    if key.value in seen:
                        duplicates.append(_duplicate_key(key.value, key.start_mark.line + 1))
                    seen.add(key.value)
            return super().construct_mapping(node, deep=deep)

    Loader.add_implicit_resolver("tag:yaml.org,2002:float", _YAML_FLOAT, list("-+.0123456789"))
    return Loader


def _to_plain_data(spec: AttachSpec, file: Path) -> dict[str, Any]:
    """Convert a spec to plain data; only the measure's parameters can hold values that no file can."""
    try:
        return spec.model_dump(mode="json")
    except PydanticSerializationError:
        got = f"got {short_repr(spec.importance.params)}"
        text = f"expected text, numbers, lists and mappings, {got}. Set such parameters in Python after loading."
        raise SpecError([Problem("importance.params", text)], str(file)) from None


def _write_json(data: dict[str, Any]) -> str:
    return json.dumps(data, indent=2, ensure_ascii=False) + "\n"


def yaml_text(data: dict[str, Any]) -> str:
    """Return plain data as YAML text, in the given order of keys."""
    import yaml

    return str(yaml.safe_dump(data, sort_keys=False, allow_unicode=True, width=120))
