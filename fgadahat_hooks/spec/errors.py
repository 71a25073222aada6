"""Turns pydantic's validation errors into problems of a spec: path, what was expected, what came, what to do."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from fgadahat_hooks.errors import Problem
from fgadahat_hooks.registry import nearest, suggest

_SHOWN = 60
"""How many characters of a wrong value a message shows."""

_YAML_BOOLS = ("true", "false", "yes", "no", "on", "off")


@dataclass(frozen=True)
class Expected:
    """Annotates a field's type with what error messages say is expected.

    Attributes:
        text: What the value should be.
        item: What one item should be, if the value is a list.
    """

    text: str
    item: str = ""


@dataclass(frozen=True)
class _Location:
    """Where in a spec an error is: the path as the user writes it, and the annotations found there."""

    path: str
    type: Any
    """The annotation of the value at the path."""
    owner: Any
    """The annotation of the block that holds the value."""
    field: FieldInfo | None
    item: bool = False
    """Whether the value is an item of a list."""


def problems(root: Any, error: ValidationError) -> tuple[Problem, ...]:
    """Turn a validation error into problems, in the order of the spec's fields.

    Args:
        root: The annotation that was validated: a model, or a union of models discriminated by a tag.
        error: What pydantic raised.
    """
    details = error.errors(include_url=False)
    return tuple(_problem(root, _locate(root, detail["loc"]), detail) for detail in details)


def short_repr(value: object) -> str:
    """Return the `repr` of a value on one line, truncated if it is long."""
    text = " ".join(repr(value).split())
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def join_path(path: str, key: str) -> str:
    """Append a key to a path."""
    return f"{path}.{key}" if path else key


def variants(annotation: Any) -> tuple[str, dict[str, type[BaseModel]]]:
    """Return the tag's key and the model for each tag, for a union of models; `("", {})` for any other type."""
    members = [member for member in get_args(_strip_annotated(annotation)) if _is_model(member)]
    tag = getattr(members[0], "tag", "") if members else ""
    return tag, {name: member for member in members if tag for name in get_args(member.model_fields[tag].annotation)}


def keys(annotation: Any) -> list[str]:
    """Return the keys that a block may have."""
    if _is_model(annotation):
        return list(annotation.model_fields)
    return list(dict.fromkeys(key for model in variants(annotation)[1].values() for key in model.model_fields))


def _strip_annotated(annotation: Any) -> Any:
    return get_args(annotation)[0] if get_origin(annotation) is Annotated else annotation


def _is_model(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def _locate(root: Any, loc: tuple[int | str, ...]) -> _Location:
    """Convert pydantic's location, which also holds the tags of unions; these are not part of the path."""
    location = _Location("", root, None, None)
    for part in loc:
        models = variants(location.type)[1]
        if isinstance(part, int):
            location = _Location(f"{location.path}[{part}]", str, location.type, location.field, item=True)
        elif part in models:
            location = _Location(location.path, models[part], location.owner, location.field)
        else:
            field = location.type.model_fields.get(part) if _is_model(location.type) else None
            location = _Location(
                join_path(location.path, part), field.annotation if field else None, location.type, field
            )
    return location


def _expected_text(location: _Location) -> str:
    """Return what is expected at a location."""
    for marker in location.field.metadata if location.field else ():
        if isinstance(marker, Expected):
            return marker.item if location.item else marker.text
    choices = get_args(location.type) if get_origin(location.type) is Literal else ()
    if choices:
        return _one_of(choices)
    tag = variants(location.type)[0]
    return (
        f"a mapping with the key {tag!r}"
        if tag
        else f"a mapping with keys among {', '.join(map(repr, keys(location.type)))}"
    )


def _keys_among(names: list[str]) -> str:
    return f"no key but {names[0]!r}" if len(names) == 1 else f"a key among {', '.join(map(repr, names))}"


def _one_of(choices: tuple[Any, ...] | list[str]) -> str:
    return repr(choices[0]) if len(choices) == 1 else f"one of {', '.join(map(repr, choices))}"


def _problem(root: Any, location: _Location, detail: ErrorDetails) -> Problem:
    return _BY_ERROR_TYPE.get(detail["type"], _wrong_value)(root, location, detail)


def _wrong_value(_: Any, location: _Location, detail: ErrorDetails) -> Problem:
    value = detail["input"]
    return Problem(
        location.path, f"expected {_expected_text(location)}, got {short_repr(value)}.{_remedy(location, value)}"
    )


def _remedy(location: _Location, value: object) -> str:
    if value is None and location.field is not None and not location.field.is_required() and not location.item:
        return " Leave the key out to use the default."
    if isinstance(value, str):
        return _remedy_for_text(location, value)
    return ""


def _remedy_for_text(location: _Location, value: str) -> str:
    tag, models = variants(location.type)
    if tag:
        return f" Write {{{tag}: {value}}}." if value in models else suggest(value, models)
    if get_origin(location.type) is Literal:
        return suggest(value, [choice for choice in get_args(location.type) if isinstance(choice, str)])
    if location.type is bool:
        return " Write it without quotes." if value.lower() in _YAML_BOOLS else ""
    return " Write the number without quotes." if location.type in (int, float) and _is_number(value) else ""


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _from_validator(_: Any, location: _Location, detail: ErrorDetails) -> Problem:
    """Return the message of one of our own validators."""
    return Problem(location.path, str(detail.get("ctx", {})["error"]))


def _missing(_: Any, location: _Location, __: ErrorDetails) -> Problem:
    tag = getattr(location.owner, "tag", "")
    needed = f" Needed by {tag} {get_args(location.owner.model_fields[tag].annotation)[0]!r}" if tag else " Needed"
    meaning = f": {location.field.description}" if location.field and location.field.description else "."
    return Problem(location.path, f"expected {_expected_text(location)}, got nothing.{needed}{meaning}")


def _wrong_tag(_: Any, location: _Location, detail: ErrorDetails) -> Problem:
    tag, models = variants(location.type)
    value = detail["input"][tag]
    text = f"expected {_one_of(list(models))}, got {short_repr(value)}.{suggest(value, models)}"
    return Problem(join_path(location.path, tag), text)


def _missing_tag(_: Any, location: _Location, detail: ErrorDetails) -> Problem:
    """Report a missing tag; the usual reason is a misspelt key."""
    tag, models = variants(location.type)
    near = nearest(tag, [key for key in detail["input"] if isinstance(key, str)])
    remedy = f" Rename the key {near[0]!r} to {tag!r}." if near else ""
    return Problem(join_path(location.path, tag), f"expected {_one_of(list(models))}, got nothing.{remedy}")


def _unknown_key(root: Any, location: _Location, detail: ErrorDetails) -> Problem:
    key = str(detail["loc"][-1])
    known = keys(location.owner)
    text = f"expected {_keys_among(known)}, got {key!r}."
    return Problem(location.path, text + (_where_key_belongs(root, location, key) or suggest(key, known)))


def _where_key_belongs(root: Any, location: _Location, key: str) -> str:
    """Name the other variant of this block, or else the other blocks, that have such a key."""
    paths = []
    for path, annotation in _blocks(root):
        tag, models = variants(annotation)
        owners = [name for name, model in models.items() if key in model.model_fields]
        if owners and location.owner in models.values():
            return f" It belongs to {tag} {_one_of(owners)}."
        if key in keys(annotation) and location.owner is not annotation:
            paths.append(join_path(path, key))
    return f" Write it as {' or '.join(map(repr, paths))}." if paths else ""


def _blocks(root: Any) -> Iterator[tuple[str, Any]]:
    """Yield path and annotation of the spec itself and of each of its blocks."""
    yield "", root
    if _is_model(root):
        for name, field in root.model_fields.items():
            if keys(field.annotation):
                yield name, field.annotation


def _key_not_text(_: Any, location: _Location, detail: ErrorDetails) -> Problem:
    return Problem(location.path, f"expected text as a key, got {short_repr(detail['input'])}.")


_BY_ERROR_TYPE: Mapping[str, Callable[[Any, _Location, ErrorDetails], Problem]] = {
    "extra_forbidden": _unknown_key,
    "invalid_key": _key_not_text,
    "missing": _missing,
    "union_tag_invalid": _wrong_tag,
    "union_tag_not_found": _missing_tag,
    "value_error": _from_validator,
}
