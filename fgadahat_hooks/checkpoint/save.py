"""Write a whole session into a folder, and read it again."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple

import torch

from fgadahat_hooks.checkpoint import folder as folders
from fgadahat_hooks.checkpoint.extra import dump_extra, plain_values
from fgadahat_hooks.checkpoint.fingerprint import fingerprint
from fgadahat_hooks.checkpoint.folder import Saving, Written
from fgadahat_hooks.checkpoint.manifest import ExtraEntry, FileEntry, Manifest, SessionEntry, parse
from fgadahat_hooks.checkpoint.plain import Reader, Writer
from fgadahat_hooks.checkpoint.problems import listed
from fgadahat_hooks.checkpoint.state import dump_state
from fgadahat_hooks.errors import BadCallError, DamagedCheckpointError, SpecError
from fgadahat_hooks.gates.attached_model import AttachedModel
from fgadahat_hooks.gates.gate import GateMode
from fgadahat_hooks.graph.tracing.forward import ModelCall
from fgadahat_hooks.spec.attach_spec import AttachSpec, to_spec
from fgadahat_hooks.tasks.random_states import random_state
from fgadahat_hooks.tasks.sequence import TaskSequence


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


class SavedExtra(NamedTuple):
    """What a folder holds of the training loop.

    Attributes:
        save_id: Id of the save.
        values: What `dump_extra` returned.
        random: State of random numbers at the time of the save.
        epoch: Their state at the start of the last epoch; None before the first epoch.
    """

    save_id: str
    values: dict[str, Any]
    random: Any
    epoch: Any


# ------------------------------------------------------------------ writing
def save_session(
    sequence: TaskSequence,
    path: str | os.PathLike[str],
    extra: Mapping[str, Any] | None,
    callbacks: Sequence[str],
    run_metadata: Callable[[], dict[str, Any]],
) -> None:
    """Write a whole session into a folder; after a crash at any point the previous save is still valid.

    Args:
        sequence: The attached model and its tasks.
        path: The folder.
        extra: What belongs to the training loop.
        callbacks: Keys of the callbacks that were given to `attach`.
        run_metadata: Returns, as JSON, what is saved for inspecting the run.

    Raises:
        NoTaskError: The model has not been traced yet.
        BadCallError: A finished task is in use, or some values are not plain data; names them.
        CheckpointError: The folder cannot be written.
    """
    if sequence.attached.gate_context.mode is GateMode.USE:
        raise BadCallError(
            "Expected a save outside `session.use(...)`, but the model holds a finished task's head and norms now. "
            "Leave that block first."
        )
    with sequence.exclusive():
        _save(sequence, Path(path), extra, callbacks, run_metadata)


def _save(
    sequence: TaskSequence,
    path: Path,
    extra: Mapping[str, Any] | None,
    callbacks: Sequence[str],
    run_metadata: Callable[[], dict[str, Any]],
) -> None:
    session, loop = Writer(), Writer()
    state = dump_state(sequence)
    spec = state.pop("spec")
    session_parts = {
        "model": session.encode(dict(sequence.attached.model.state_dict()), "model"),
        "state": session.encode(state, "state"),
        "example_inputs": _example_inputs(sequence.attached.example_inputs, session),
    }
    extra_parts = {
        "values": loop.encode(dump_extra(extra), "extra"),
        "random": loop.encode(random_state(), "random"),
        "epoch": loop.encode(sequence.epoch_replay.state, "epoch"),
    }
    _check_plain([*session.problems, *loop.problems])
    about = run_metadata()
    with folders.saving(path) as save:
        files = [save.write_tensors("session", session.tensors), save.write_tensors("extra", loop.tensors)]
        manifest = _manifest(sequence.attached, save, files, spec, session_parts, extra_parts, callbacks, about)
        save.commit(manifest.as_bytes())
        save.remove_old_files({file.name for file in files})


def _manifest(
    attached: AttachedModel,
    save: Saving,
    files: list[Written],
    spec: Any,
    session_parts: dict[str, Any],
    extra_parts: dict[str, Any],
    callbacks: Sequence[str],
    about: dict[str, Any],
) -> Manifest:
    session_file, extra_file = (FileEntry(**file._asdict()) for file in files)
    return Manifest(
        format="fgadahat_hooks",
        version=1,
        library=library_version(),
        torch=str(torch.__version__),
        id=save.id,
        model=fingerprint(attached),
        callbacks=list(callbacks),
        spec=spec,
        session=SessionEntry(file=session_file, **session_parts),
        extra=ExtraEntry(file=extra_file, **extra_parts),
        about=about,
        sha256="0" * 64,
    )


def library_version() -> str:
    """Return the installed version of this library."""
    try:
        return version("fgadahat-hooks")
    except PackageNotFoundError:  # imported from a checkout that is not installed
        return "unknown"


def _example_inputs(inputs: Any, writer: Writer) -> Any:
    """Return the inputs of the trace as JSON; None if they are not plain data, so that `load` needs them again."""
    trial = Writer()
    given = {"args": list(inputs.args), "kwargs": dict(inputs.kwargs)} if isinstance(inputs, ModelCall) else inputs
    kind = "call" if isinstance(inputs, ModelCall) else "as given"
    trial.encode(given, "")
    return None if trial.problems else writer.encode({"kind": kind, "value": given}, "example_inputs")


def _check_plain(problems: list[str]) -> None:
    if problems:
        raise BadCallError(
            "Expected tensors, numbers, strings, None, and lists, tuples and dicts of them, but some values are "
            "something else. Nothing was written. Leave them out, or change the state_dict they come from."
            + listed(problems)
        )


# ------------------------------------------------------------------ reading
def read_session(path: str | os.PathLike[str]) -> Contents:
    """Read a folder and check all of its files; no code in it is ever run.

    Raises:
        CheckpointError: The folder holds no saved session, or cannot be read.
        NewerFormatError: A newer release wrote it.
        DamagedCheckpointError: Files are missing, cut off or changed; names all of them.
    """
    folder = Path(path)
    with folders.reading(folder):
        manifest = _checked_manifest(folder)
        reader = Reader(folders.read_tensors(folder, manifest.session.file.name))
    values: dict[str, Any] = reader.decode(manifest.session.model)
    state = {**reader.decode(manifest.session.state), "spec": manifest.spec}
    inputs = reader.decode(manifest.session.example_inputs)
    return Contents(manifest, values, state, _decoded_inputs(inputs))


def saved_spec(contents: Contents, path: str | os.PathLike[str]) -> AttachSpec:
    """Return the validated spec of a saved session.

    Args:
        contents: What the folder holds.
        path: The folder, for the error.

    Raises:
        SpecError: The spec is not valid here, for example because a measure is not registered.
    """
    try:
        return to_spec(contents.manifest.spec)
    except SpecError as error:
        raise SpecError(error.problems, os.fspath(path)) from None


def read_extra(path: str | os.PathLike[str]) -> SavedExtra:
    """Read what was saved beside the session.

    Raises:
        CheckpointError: The folder cannot be read; see `read_session`.
    """
    folder = Path(path)
    with folders.reading(folder):
        manifest = _checked_manifest(folder)
        reader = Reader(folders.read_tensors(folder, manifest.extra.file.name))
    values = reader.decode(manifest.extra.values)
    if not all(isinstance(part, dict) and set(part) == {"object", "value"} for part in values.values()):
        raise DamagedCheckpointError(
            "Expected extras as `session.save` writes them, but they are something else. Nothing was changed. Take "
            "another copy of the folder."
        )
    return SavedExtra(manifest.id, values, reader.decode(manifest.extra.random), reader.decode(manifest.extra.epoch))


def read_plain_extra(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read what was saved beside the session as plain data, by name; the states of objects are left out.

    Raises:
        CheckpointError: The folder cannot be read; see `read_session`.
    """
    return plain_values(read_extra(path).values)


def _checked_manifest(folder: Path) -> Manifest:
    """Return the manifest of a folder whose files are as they were written."""
    manifest = parse(folders.read_manifest(folder))
    files = (Written(f.name, f.size, f.sha256) for f in (manifest.session.file, manifest.extra.file))
    wrong = [problem for file in files if (problem := folders.file_problem(folder, file)) is not None]
    if wrong:
        raise DamagedCheckpointError(
            f"Expected the files that were saved in {str(folder)!r}, but {'; '.join(wrong)}. Nothing was changed. Take "
            "another copy of the folder."
        )
    return manifest


def _decoded_inputs(saved: Any) -> Any:
    """Return the example inputs from what `_example_inputs` encoded."""
    try:
        if saved is None or saved["kind"] == "as given":
            return None if saved is None else saved["value"]
        return ModelCall(tuple(saved["value"]["args"]), dict(saved["value"]["kwargs"]))
    except (KeyError, TypeError, ValueError) as error:
        raise DamagedCheckpointError(
            f"Expected example inputs as `session.save` writes them, but they cannot be read ({error!r}). Nothing was "
            "changed. Take another copy of the folder."
        ) from error
