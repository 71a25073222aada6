"""What pydantic found wrong with a spec, said in the words of a spec: path, expected, got, what to do."""

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
    """Says, beside a type, what is expected there.

    Attributes:
        text: What is expected of the value.
        item: What is expected of one item, where the value is a list.
    """

    text: str
    item: str = ""


@dataclass(frozen=True)
class _Place:
    """Where in a spec an error is: the path as it is written there, and what belongs there."""

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
        root: The annotation that was validated: a model, or a union of models told apart by a tag.
        error: What pydantic raised.
    """
    details = error.errors(include_url=False)
    return tuple(_problem(root, _locate(root, detail["loc"]), detail) for detail in details)


def show(value: object) -> str:
    """Return the value as Python writes it, on one line, cut where it is long."""
    text = " ".join(repr(value).split())
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def join(path: str, key: str) -> str:
    """Append a key to a path."""
    return f"{path}.{key}" if path else key


def variants(annotation: Any) -> tuple[str, dict[str, type[BaseModel]]]:
    """Return the tag's name and the model of each tag, of a union of models; `("", {})` for any other type."""
    members = [member for member in get_args(_bare(annotation)) if _is_model(member)]
    tag = getattr(members[0], "tag", "") if members else ""
    return tag, {name: member for member in members if tag for name in get_args(member.model_fields[tag].annotation)}


def keys(annotation: Any) -> list[str]:
    """Return the keys a block may have."""
    if _is_model(annotation):
        return list(annotation.model_fields)
    return list(dict.fromkeys(key for model in variants(annotation)[1].values() for key in model.model_fields))


def _bare(annotation: Any) -> Any:
    return get_args(annotation)[0] if get_origin(annotation) is Annotated else annotation


def _is_model(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def _locate(root: Any, loc: tuple[int | str, ...]) -> _Place:
    """Follow pydantic's location; it holds the tag of a union, which is no part of the path."""
    place = _Place("", root, None, None)
    for part in loc:
        models = variants(place.type)[1]
        if isinstance(part, int):
            place = _Place(f"{place.path}[{part}]", str, place.type, place.field, item=True)
        elif part in models:
            place = _Place(place.path, models[part], place.owner, place.field)
        else:
            field = place.type.model_fields.get(part) if _is_model(place.type) else None
            place = _Place(join(place.path, part), field.annotation if field else None, place.type, field)
    return place


def _expected(place: _Place) -> str:
    """Say what belongs at a place."""
    for marker in place.field.metadata if place.field else ():
        if isinstance(marker, Expected):
            return marker.item if place.item else marker.text
    choices = get_args(place.type) if get_origin(place.type) is Literal else ()
    if choices:
        return _one_of(choices)
    tag = variants(place.type)[0]
    return (
        f"a mapping with the key {tag!r}"
        if tag
        else f"a mapping with keys among {', '.join(map(repr, keys(place.type)))}"
    )


def _keys_among(names: list[str]) -> str:
    return f"no key but {names[0]!r}" if len(names) == 1 else f"a key among {', '.join(map(repr, names))}"


def _one_of(choices: tuple[Any, ...] | list[str]) -> str:
    return repr(choices[0]) if len(choices) == 1 else f"one of {', '.join(map(repr, choices))}"


def _problem(root: Any, place: _Place, detail: ErrorDetails) -> Problem:
    return _SAID.get(detail["type"], _wrong_value)(root, place, detail)


def _wrong_value(_: Any, place: _Place, detail: ErrorDetails) -> Problem:
    value = detail["input"]
    return Problem(place.path, f"expected {_expected(place)}, got {show(value)}.{_remedy(place, value)}")


def _remedy(place: _Place, value: object) -> str:
    if value is None and place.field is not None and not place.field.is_required() and not place.item:
        return " Leave the key out to use the default."
    if isinstance(value, str):
        return _remedy_for_text(place, value)
    return ""


def _remedy_for_text(place: _Place, value: str) -> str:
    tag, models = variants(place.type)
    if tag:
        return f" Write {{{tag}: {value}}}." if value in models else suggest(value, models)
    if get_origin(place.type) is Literal:
        return suggest(value, [choice for choice in get_args(place.type) if isinstance(choice, str)])
    if place.type is bool:
        return " Write it without quotes." if value.lower() in _YAML_BOOLS else ""
    return " Write the number without quotes." if place.type in (int, float) and _is_number(value) else ""


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _own_words(_: Any, place: _Place, detail: ErrorDetails) -> Problem:
    """Pass on what one of our validators said."""
    return Problem(place.path, str(detail.get("ctx", {})["error"]))


def _missing(_: Any, place: _Place, __: ErrorDetails) -> Problem:
    tag = getattr(place.owner, "tag", "")
    needed = f" Needed by {tag} {get_args(place.owner.model_fields[tag].annotation)[0]!r}" if tag else " Needed"
    meaning = f": {place.field.description}" if place.field and place.field.description else "."
    return Problem(place.path, f"expected {_expected(place)}, got nothing.{needed}{meaning}")


def _wrong_tag(_: Any, place: _Place, detail: ErrorDetails) -> Problem:
    tag, models = variants(place.type)
    value = detail["input"][tag]
    text = f"expected {_one_of(list(models))}, got {show(value)}.{suggest(value, models)}"
    return Problem(join(place.path, tag), text)


def _no_tag(_: Any, place: _Place, detail: ErrorDetails) -> Problem:
    """A union whose tag is absent; a misspelt tag key is the usual reason."""
    tag, models = variants(place.type)
    near = nearest(tag, [key for key in detail["input"] if isinstance(key, str)])
    there = f" Rename the key {near[0]!r} to {tag!r}." if near else ""
    return Problem(join(place.path, tag), f"expected {_one_of(list(models))}, got nothing.{there}")


def _unknown_key(root: Any, place: _Place, detail: ErrorDetails) -> Problem:
    key = str(detail["loc"][-1])
    known = keys(place.owner)
    text = f"expected {_keys_among(known)}, got {key!r}."
    return Problem(place.path, text + (_elsewhere(root, place, key) or suggest(key, known)))


def _elsewhere(root: Any, place: _Place, key: str) -> str:
    """Say which other variant of this block, or which other blocks, have such a key."""
    homes = []
    for path, annotation in _blocks(root):
        tag, models = variants(annotation)
        owners = [name for name, model in models.items() if key in model.model_fields]
        if owners and place.owner in models.values():
            return f" It belongs to {tag} {_one_of(owners)}."
        if key in keys(annotation) and place.owner is not annotation:
            homes.append(join(path, key))
    return f" Write it as {' or '.join(map(repr, homes))}." if homes else ""


def _blocks(root: Any) -> Iterator[tuple[str, Any]]:
    """Go through a spec's blocks, the spec itself first; the path of each and its annotation."""
    yield "", root
    if _is_model(root):
        for name, field in root.model_fields.items():
            if keys(field.annotation):
                yield name, field.annotation


def _wrong_key(_: Any, place: _Place, detail: ErrorDetails) -> Problem:
    return Problem(place.path, f"expected text as a key, got {show(detail['input'])}.")


_SAID: Mapping[str, Callable[[Any, _Place, ErrorDetails], Problem]] = {
    "extra_forbidden": _unknown_key,
    "invalid_key": _wrong_key,
    "missing": _missing,
    "union_tag_invalid": _wrong_tag,
    "union_tag_not_found": _no_tag,
    "value_error": _own_words,
}
