"""What stands in the manifest, and how it is read: JSON that may hold anything until it has been checked."""

from __future__ import annotations

import hashlib
import json
import math
from typing import Annotated, Any, Literal, NoReturn

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError

from fgadahat_hooks.checkpoint.folder import FILE_NAME
from fgadahat_hooks.errors import CheckpointError, DamagedCheckpointError, NewerFormatError

FORMAT = "fgadahat_hooks"
VERSION = 1
"""Raised when an older release could not read what a newer one writes; what is below must stay readable."""
_SHOWN = 10

_Count = Annotated[int, Field(ge=0)]
_Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class FileEntry(_Part):
    """A file of the save."""

    name: Annotated[str, Field(pattern=FILE_NAME)]
    size: _Count
    sha256: _Digest


class TensorEntry(_Part):
    """A parameter or buffer of the model, without its gates."""

    name: str
    shape: list[_Count]
    dtype: str


class ModelEntry(_Part):
    """What tells one model from another; the class is for people to read."""

    class_name: str
    tensors: list[TensorEntry]
    tied: list[list[str]]
    resizable: list[str]


class SessionEntry(_Part):
    """The model's values, the session's state and the inputs it was traced with, as JSON that refers to tensors."""

    file: FileEntry
    model: dict[str, JsonValue]
    state: dict[str, JsonValue]
    example_inputs: JsonValue


class ExtraEntry(_Part):
    """What belongs to the loop: optimizers and the like, and random numbers."""

    file: FileEntry
    values: dict[str, JsonValue]
    random: JsonValue
    epoch: JsonValue


class Manifest(_Part):
    """All of it."""

    format: Literal["fgadahat_hooks"]
    version: Literal[1]
    library: str
    torch: str
    id: Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")]
    model: ModelEntry
    callbacks: list[str]
    spec: dict[str, JsonValue]
    session: SessionEntry
    extra: ExtraEntry
    about: dict[str, JsonValue] | None = None  # for looking at the run; loading it needs nothing of this
    sha256: _Digest

    def as_bytes(self) -> bytes:
        """Return the file, with its own checksum in it."""
        content = self.model_dump(mode="python")
        content["sha256"] = _checksum(content)
        lines = (f" {json.dumps(key)}: {json.dumps(value, allow_nan=False)}" for key, value in content.items())
        return ("{\n" + ",\n".join(lines) + "\n}\n").encode("ascii")


def parse(raw: bytes) -> Manifest:
    """Read a manifest.

    Raises:
        CheckpointError: It is none of this library.
        NewerFormatError: A newer release wrote it.
        DamagedCheckpointError: It was changed, or is not whole; names all that is wrong.
    """
    content = _json(raw)
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise CheckpointError(
            "Expected the manifest of a saved session, but the file is something else. Nothing was changed. Choose the "
            "folder that `session.save` wrote."
        )
    version = content.get("version")
    if type(version) is int and version > VERSION:
        by = str(content.get("library"))[:20]
        raise NewerFormatError(
            f"Expected a save of format {VERSION} or older, but got {version}, written by fgadahat_hooks {by}. Nothing "
            "was changed. Read it with the release that wrote it, or a newer one."
        )
    try:
        manifest = Manifest.model_validate(content)
    except (ValidationError, RecursionError) as error:
        _refuse(error)
    if _checksum(content) != manifest.sha256:
        raise DamagedCheckpointError(
            "Expected the manifest as it was written, but it does not match its checksum: something in it was changed. "
            "Nothing was changed here. Take another copy of the folder."
        )
    return manifest


def _refuse(error: ValidationError | RecursionError) -> NoReturn:
    found = error.errors(include_url=False, include_input=False) if isinstance(error, ValidationError) else []
    said = [f"{'.'.join(map(str, one['loc']))[:80]}: {one['msg']}" for one in found[:_SHOWN]]
    more = f"\n  and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
    raise DamagedCheckpointError(
        "Expected a whole manifest, but it is not. Nothing was changed. Take another copy of the folder.\n  "
        + "\n  ".join(said or ["it is nested too deeply"])
        + more
    ) from error


def _checksum(content: dict[str, Any]) -> str:
    """Return the SHA-256 of all but the checksum itself, however the file is laid out."""
    body = {key: value for key, value in content.items() if key != "sha256"}
    return hashlib.sha256(json.dumps(body, sort_keys=True, separators=(",", ":")).encode("ascii")).hexdigest()


def _json(raw: bytes) -> Any:
    try:
        return json.loads(raw.decode("utf-8"), object_pairs_hook=_once, parse_constant=_number, parse_float=_number)
    except (ValueError, RecursionError) as error:  # UnicodeDecodeError and JSONDecodeError are ValueErrors
        raise DamagedCheckpointError(
            f"Expected the manifest to be JSON, but it cannot be read ({str(error)[:200]}). Nothing was changed. Take "
            "another copy of the folder."
        ) from error


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key comes twice")
    return found


def _number(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text[:20]} is no finite number")
    return value
