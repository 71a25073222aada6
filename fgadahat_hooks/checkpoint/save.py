"""Write everything of a session into a folder, and read it again."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import torch

from fgadahat_hooks.checkpoint import folder as folders
from fgadahat_hooks.checkpoint.extra import dump_extra
from fgadahat_hooks.checkpoint.fingerprint import fingerprint
from fgadahat_hooks.checkpoint.folder import Saving, Written
from fgadahat_hooks.checkpoint.manifest import ExtraEntry, FileEntry, Manifest, SessionEntry, parse
from fgadahat_hooks.checkpoint.plain import Reader, Writer
from fgadahat_hooks.checkpoint.state import dump_state
from fgadahat_hooks.errors import BadCallError, DamagedCheckpointError
from fgadahat_hooks.gates.attached_model import AttachedModel
from fgadahat_hooks.gates.gate import GateMode
from fgadahat_hooks.graph.tracing.forward import Call
from fgadahat_hooks.tasks.random_states import random_state
from fgadahat_hooks.tasks.sequence import TaskSequence

_SHOWN = 10


class Contents(NamedTuple):
    """What a folder holds of a session.

    Attributes:
        manifest: The checked manifest.
        model: The model's values, gates included, as its `state_dict`.
        state: What `session.state_dict` returned.
        example_inputs: What the model was traced with, None if it could not be stored.
    """

    manifest: Manifest
    model: dict[str, Any]
    state: dict[str, Any]
    example_inputs: Any


# ------------------------------------------------------------------ there
def save_session(
    sequence: TaskSequence,
    path: str | os.PathLike[str],
    extra: Mapping[str, Any] | None,
    callbacks: Sequence[str],
    metadata: Callable[[], dict[str, Any]],
) -> None:
    """Write all of a session into a folder; a crash at any point leaves the save that was there.

    Args:
        sequence: The attached model and its tasks.
        path: The folder.
        extra: What belongs to the loop.
        callbacks: Keys of the callbacks that were given to `attach`.
        metadata: Returns, as JSON, what people look at when they look at the run.

    Raises:
        NoTaskError: The model has not been traced yet.
        BadCallError: A finished task is in use, or something is not plain data; names all of it.
        CheckpointError: The folder cannot be written.
    """
    if sequence.attached.gate_context.mode is GateMode.USE:
        raise BadCallError(
            "Expected a save outside `session.use(...)`, but the model holds a finished task's head and norms now. "
            "Leave that block first."
        )
    with sequence.alone():
        _save(sequence, Path(path), extra, callbacks, metadata)


def _save(
    sequence: TaskSequence,
    path: Path,
    extra: Mapping[str, Any] | None,
    callbacks: Sequence[str],
    metadata: Callable[[], dict[str, Any]],
) -> None:
    session, others = Writer(), Writer()
    state = dump_state(sequence)
    spec = state.pop("spec")
    parts = {
        "model": session.encode(dict(sequence.attached.model.state_dict()), "model"),
        "state": session.encode(state, "state"),
        "example_inputs": _example_inputs(sequence.attached.example_inputs, session),
    }
    more = {
        "values": others.encode(dump_extra(extra), "extra"),
        "random": others.encode(random_state(), "random"),
        "epoch": others.encode(sequence.draws.state, "epoch"),
    }
    _refuse([*session.problems, *others.problems])
    about = metadata()
    with folders.saving(path) as save:
        files = [save.tensors("session", session.tensors), save.tensors("extra", others.tensors)]
        save.commit(_manifest(sequence.attached, save, files, spec, parts, more, callbacks, about).as_bytes())
        save.clean({file.name for file in files})


def _manifest(
    attached: AttachedModel,
    save: Saving,
    files: list[Written],
    spec: Any,
    parts: dict[str, Any],
    more: dict[str, Any],
    callbacks: Sequence[str],
    about: dict[str, Any],
) -> Manifest:
    session, extra = (FileEntry(**file._asdict()) for file in files)
    return Manifest(
        format="fgadahat_hooks",
        version=1,
        library=library_version(),
        torch=str(torch.__version__),
        id=save.id,
        model=fingerprint(attached),
        callbacks=list(callbacks),
        spec=spec,
        session=SessionEntry(file=session, **parts),
        extra=ExtraEntry(file=extra, **more),
        about=about,
        sha256="0" * 64,
    )


def library_version() -> str:
    """Return the installed version of this library."""
    try:
        return metadata.version("fgadahat-hooks")
    except metadata.PackageNotFoundError:  # run from a checkout
        return "unknown"


def _example_inputs(inputs: Any, writer: Writer) -> Any:
    """Return the inputs of the trace if they are plain data; whoever loads the folder must pass others."""
    trial = Writer()
    given = {"args": list(inputs.args), "kwargs": dict(inputs.kwargs)} if isinstance(inputs, Call) else inputs
    kind = "call" if isinstance(inputs, Call) else "as given"
    trial.encode(given, "")
    return None if trial.problems else writer.encode({"kind": kind, "value": given}, "example_inputs")


def _refuse(problems: list[str]) -> None:
    if problems:
        more = f"\n  and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
        raise BadCallError(
            "Expected tensors, numbers, strings, None, and lists, tuples and dicts of them, but some values are "
            "something else. Nothing was written. Leave them out, or change the state_dict they come from.\n  "
            + "\n  ".join(problems[:_SHOWN])
            + more
        )


# ------------------------------------------------------------------ and back
def read_session(path: str | os.PathLike[str]) -> Contents:
    """Read and check a folder, all of its files; nothing in it is ever run.

    Raises:
        CheckpointError: There is no saved session, or it cannot be read.
        NewerFormatError: A newer release wrote it.
        DamagedCheckpointError: Files are missing, cut off or changed; names all of them.
    """
    folder = Path(path)
    with folders.reading(folder):
        manifest = _checked(folder)
        reader = Reader(folders.read_tensors(folder, manifest.session.file.name))
    values: dict[str, Any] = reader.decode(manifest.session.model)
    state = {**reader.decode(manifest.session.state), "spec": manifest.spec}
    inputs = reader.decode(manifest.session.example_inputs)
    return Contents(manifest, values, state, _inputs(inputs))


def read_extra(path: str | os.PathLike[str]) -> tuple[str, dict[str, Any], Any, Any]:
    """Read what was saved beside the session: the id of the save, the extras, random numbers now and of the epoch."""
    folder = Path(path)
    with folders.reading(folder):
        manifest = _checked(folder)
        reader = Reader(folders.read_tensors(folder, manifest.extra.file.name))
    values = reader.decode(manifest.extra.values)
    if not all(isinstance(part, dict) and set(part) == {"object", "value"} for part in values.values()):
        raise DamagedCheckpointError(
            "Expected extras as `session.save` writes them, but they are something else. Nothing was changed. Take "
            "another copy of the folder."
        )
    return manifest.id, values, reader.decode(manifest.extra.random), reader.decode(manifest.extra.epoch)


def read_plain_extra(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read what was saved beside the session as plain data, by name; the states of objects are left out.

    Raises:
        CheckpointError: The folder cannot be read; see `read_session`.
    """
    return {name: part["value"] for name, part in read_extra(path)[1].items() if not part["object"]}


def _checked(folder: Path) -> Manifest:
    manifest = parse(folders.read_manifest(folder))
    files = (Written(f.name, f.size, f.sha256) for f in (manifest.session.file, manifest.extra.file))
    wrong = [found for file in files if (found := folders.damage(folder, file)) is not None]
    if wrong:
        raise DamagedCheckpointError(
            f"Expected the files that were saved in {str(folder)!r}, but {'; '.join(wrong)}. Nothing was changed. Take "
            "another copy of the folder."
        )
    return manifest


def _inputs(saved: Any) -> Any:
    try:
        if saved is None or saved["kind"] == "as given":
            return None if saved is None else saved["value"]
        return Call(tuple(saved["value"]["args"]), dict(saved["value"]["kwargs"]))
    except (KeyError, TypeError, ValueError) as error:
        raise DamagedCheckpointError(
            f"Expected example inputs as `session.save` writes them, but they cannot be read ({error!r}). Nothing was "
            "changed. Take another copy of the folder."
        ) from error
