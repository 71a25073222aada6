"""The base of all spec blocks, and the kinds of values their fields take."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, WithJsonSchema

from fgadahat_hooks.errors import MatchError, SpecError
from fgadahat_hooks.spec.errors import Expected, join, problems, show
from fgadahat_hooks.spec.patterns import compile_pattern


class Block(BaseModel):
    """A part of a spec: frozen, without unknown keys, every problem reported at once.

    Raises:
        SpecError: A value is not what its field expects, a key is unknown or one is missing.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    tag: ClassVar[str] = ""
    """The key that tells the variants of this block apart, if it has any."""

    def __init__(self, /, **data: Any) -> None:
        """Check the values."""
        try:
            super().__init__(**data)
        except ValidationError as error:
            raise SpecError(problems(type(self), error)) from None

    # Marked as pydantic's own, so that the block that holds this one checks its values and reports all in one list.
    __init__.__pydantic_base_init__ = True  # type: ignore[attr-defined]


def _as_tuple(value: object) -> object:
    """Take a single text for a list of one, and any sequence for a tuple."""
    if isinstance(value, str):
        return (value,)
    return tuple(value) if isinstance(value, Sequence) else value


def _some(value: tuple[str, ...]) -> tuple[str, ...]:
    if not value:
        raise ValueError("expected at least one, got an empty list. Leave the key out to use the default.")
    return value


def _readable(pattern: str) -> str:
    try:
        compile_pattern(pattern)
    except MatchError as error:
        raise ValueError(str(error)) from None
    return pattern


def _named(params: object) -> object:
    """Refuse keys that cannot be the name of a parameter."""
    for key in params if isinstance(params, Mapping) else ():
        if not isinstance(key, str):
            raise ValueError(f"expected text as a key, got {show(key)}.")
    return params


def _finite(params: dict[str, Any]) -> dict[str, Any]:
    """Refuse numbers, at any depth, that are infinite or none."""
    bad = _not_finite(params, "")
    if bad:
        raise ValueError(f"expected finite numbers, got {bad}.")
    return params


def _not_finite(value: object, path: str) -> str:
    """Return the first number that is not finite as `path = value`, or an empty text."""
    if isinstance(value, float) and not math.isfinite(value):
        return f"{path} = {value}"
    if isinstance(value, Mapping):
        inside = ((join(path, str(key)), item) for key, item in value.items())
    elif isinstance(value, list | tuple):
        inside = ((f"{path}[{index}]", item) for index, item in enumerate(value))
    else:
        return ""
    return next(filter(None, (_not_finite(item, where) for where, item in inside)), "")


def plain(value: object) -> object:
    """Copy mappings of any class, at any depth, into dicts, the only mappings pydantic takes."""
    return {key: plain(item) for key, item in value.items()} if isinstance(value, Mapping) else value


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
    BeforeValidator(_named),
    AfterValidator(_finite),
]

_Name = Annotated[str, Field(strict=True, min_length=1)]
_Pattern = Annotated[str, Field(strict=True), AfterValidator(_readable)]
_PATTERNS = Expected("a pattern or a list of patterns", item="a pattern as text")
_SCHEMA = {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]}
_SCHEMA_OR_NULL = {"anyOf": [*_SCHEMA["anyOf"], {"type": "null"}]}

Patterns = Annotated[tuple[_Pattern, ...], BeforeValidator(_as_tuple), WithJsonSchema(_SCHEMA), _PATTERNS]
SomePatterns = Annotated[Patterns, AfterValidator(_some)]
NamesOrNone = Annotated[
    Annotated[tuple[_Name, ...], BeforeValidator(_as_tuple)] | None,
    WithJsonSchema(_SCHEMA_OR_NULL),
    Expected("a name, a list of names, or null", item="a name as text"),
]
