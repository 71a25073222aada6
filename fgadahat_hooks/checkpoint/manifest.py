"""The fields of the manifest, and how it is read: JSON that may hold anything until it has been checked."""

from __future__ import annotations

import hashlib
import json
import math
from typing import Annotated, Any, Literal, NoReturn

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError

from fgadahat_hooks.checkpoint.folder import FILE_NAME
from fgadahat_hooks.checkpoint.problems import listed, validation_problems
from fgadahat_hooks.errors import CheckpointError, DamagedCheckpointError, NewerFormatError

FORMAT = "fgadahat_hooks"
VERSION = 1
"""To be increased when older releases can no longer read what is written; lower versions must stay readable."""

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
    """What distinguishes one model from another; the class name is for people to read."""

    class_name: str
    tensors: list[TensorEntry]
    tied: list[list[str]]
    resizable: list[str]


class SessionEntry(_Part):
    """The model's values, the session's state and the inputs of the trace, as JSON that refers to tensors by key."""

    file: FileEntry
    model: dict[str, JsonValue]
    state: dict[str, JsonValue]
    example_inputs: JsonValue


class ExtraEntry(_Part):
    """What belongs to the training loop: optimizers and the like, and states of random numbers."""

    file: FileEntry
    values: dict[str, JsonValue]
    random: JsonValue
    epoch: JsonValue


class Manifest(_Part):
    """The whole manifest. `about` holds the `RunMetadata`; the key is that of earlier releases."""

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
    about: dict[str, JsonValue] | None = None  # for inspection only; loading does not need it
    sha256: _Digest

    def as_bytes(self) -> bytes:
        """Return the content of the file, with its own checksum in it."""
        content = self.model_dump(mode="python")
        content["sha256"] = _checksum(content)
        lines = (f" {json.dumps(key)}: {json.dumps(value, allow_nan=False)}" for key, value in content.items())
        return ("{\n" + ",\n".join(lines) + "\n}\n").encode("ascii")


def parse(raw: bytes) -> Manifest:
    """Read a manifest.

    Raises:
        CheckpointError: It is not a manifest of this library.
        NewerFormatError: A newer release wrote it.
        DamagedCheckpointError: It was changed, or is incomplete; names all problems.
    """
    content = _parse_json(raw)
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
        _report_invalid(error)
    if _checksum(content) != manifest.sha256:
        raise DamagedCheckpointError(
            "Expected the manifest as it was written, but it does not match its checksum: something in it was changed. "
            "Nothing was changed here. Take another copy of the folder."
        )
    return manifest


def _report_invalid(error: ValidationError | RecursionError) -> NoReturn:
    raise DamagedCheckpointError(
        "Expected a whole manifest, but it is not. Nothing was changed. Take another copy of the folder."
        + listed(validation_problems(error))
    ) from error


def _checksum(content: dict[str, Any]) -> str:
    """Return the SHA-256 of everything but the checksum itself, whatever the layout of the file."""
    body = {key: value for key, value in content.items() if key != "sha256"}
    return hashlib.sha256(json.dumps(body, sort_keys=True, separators=(",", ":")).encode("ascii")).hexdigest()


def _parse_json(raw: bytes) -> Any:
    try:
        return json.loads(
            raw.decode("utf-8"),
            object_pairs_hook=_with_unique_keys,
            parse_constant=_finite_number,
            parse_float=_finite_number,
        )
    except (ValueError, RecursionError) as error:  # UnicodeDecodeError and JSONDecodeError are ValueErrors
        raise DamagedCheckpointError(
            f"Expected the manifest to be JSON, but it cannot be read ({str(error)[:200]}). Nothing was changed. Take "
            "another copy of the folder."
        ) from error


def _with_unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key comes twice")
    return found


def _finite_number(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text[:20]} is no finite number")
    return value
