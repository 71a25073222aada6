"""The base class of all spec blocks, and the types of their fields."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, WithJsonSchema

from fgadahat_hooks.errors import MatchError, SpecError
from fgadahat_hooks.spec.errors import Expected, join_path, problems, short_repr
from fgadahat_hooks.spec.patterns import compile_pattern


class Block(BaseModel):
    """A part of a spec: frozen, refuses unknown keys, reports all problems at once.

    Raises:
        SpecError: A value is not what its field expects, or a key is unknown or missing.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    tag: ClassVar[str] = ""
    """The key whose value selects the variant of this block, if it has variants."""

    def __init__(self, /, **data: Any) -> None:
        """Validate the values."""
        try:
            super().__init__(**data)
        except ValidationError as error:
            raise SpecError(problems(type(self), error)) from None

    # Marked as pydantic's own, so that an enclosing block validates this one's values and reports all problems at once.
    __init__.__pydantic_base_init__ = True  # type: ignore[attr-defined]


def _as_tuple(value: object) -> object:
    """Turn a single string into a tuple of one, and any sequence into a tuple."""
    if isinstance(value, str):
        return (value,)
    return tuple(value) if isinstance(value, Sequence) else value


def _non_empty(value: tuple[str, ...]) -> tuple[str, ...]:
    if not value:
        raise ValueError("expected at least one, got an empty list. Leave the key out to use the default.")
    return value


def _valid_pattern(pattern: str) -> str:
    try:
        compile_pattern(pattern)
    except MatchError as error:
        raise ValueError(str(error)) from None
    return pattern


def _string_keys(params: object) -> object:
    """Refuse keys that are not strings, since they name parameters."""
    for key in params if isinstance(params, Mapping) else ():
        if not isinstance(key, str):
            raise ValueError(f"expected text as a key, got {short_repr(key)}.")
    return params


def _all_finite(params: dict[str, Any]) -> dict[str, Any]:
    """Refuse infinities and NaN at any depth."""
    first = _first_non_finite(params, "")
    if first:
        raise ValueError(f"expected finite numbers, got {first}.")
    return params


def _first_non_finite(value: object, path: str) -> str:
    """Return the first number that is not finite as `path = value`, or an empty string."""
    if isinstance(value, float) and not math.isfinite(value):
        return f"{path} = {value}"
    if isinstance(value, Mapping):
        inside = ((join_path(path, str(key)), item) for key, item in value.items())
    elif isinstance(value, list | tuple):
        inside = ((f"{path}[{index}]", item) for index, item in enumerate(value))
    else:
        return ""
    return next(filter(None, (_first_non_finite(item, where) for where, item in inside)), "")


def to_dicts(value: object) -> object:
    """Convert mappings of any class, at any depth, to dicts, the only mappings that pydantic accepts."""
    return {key: to_dicts(item) for key, item in value.items()} if isinstance(value, Mapping) else value


_FINITE = Field(strict=True, allow_inf_nan=False)

Positive = Annotated[float, _FINITE, Field(gt=0), Expected("a finite number > 0")]
NonNegative = Annotated[float, _FINITE, Field(ge=0), Expected("a finite number >= 0")]
AboveOne = Annotated[float, _FINITE, Field(gt=1), Expected("a finite number > 1")]
Portion = Annotated[float, _FINITE, Field(ge=0, le=1), Expected("a finite number from 0 to 1")]
Share = Annotated[float, _FINITE, Field(gt=0, le=1), Expected("a finite number > 0 and <= 1")]
Count = Annotated[int, Field(strict=True, ge=1), Expected("a whole number >= 1")]
# The largest seed that torch.Generator.manual_seed takes.
Seed = Annotated[int, Field(strict=True, ge=0, lt=2**63), Expected(f"a whole number from 0 to {2**63 - 1}")]
Flag = Annotated[bool, Field(strict=True), Expected("true or false")]
Name = Annotated[str, Field(strict=True), Expected("a name as text")]
Params = Annotated[
    dict[str, Any],
    Expected("a mapping from parameter names to values"),
    BeforeValidator(_string_keys),
    AfterValidator(_all_finite),
]

_Name = Annotated[str, Field(strict=True, min_length=1)]
_Pattern = Annotated[str, Field(strict=True), AfterValidator(_valid_pattern)]
_PATTERNS = Expected("a pattern or a list of patterns", item="a pattern as text")
_SCHEMA = {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]}
_SCHEMA_OR_NULL = {"anyOf": [*_SCHEMA["anyOf"], {"type": "null"}]}

Patterns = Annotated[tuple[_Pattern, ...], BeforeValidator(_as_tuple), WithJsonSchema(_SCHEMA), _PATTERNS]
SomePatterns = Annotated[Patterns, AfterValidator(_non_empty)]
NamesOrNone = Annotated[
    Annotated[tuple[_Name, ...], BeforeValidator(_as_tuple)] | None,
    WithJsonSchema(_SCHEMA_OR_NULL),
    Expected("a name, a list of names, or null", item="a name as text"),
]
