"""A saved session on a new model."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor, nn

from fgadahat_hooks.callbacks import Callback
from fgadahat_hooks.callbacks.lists import default_callbacks, describe
from fgadahat_hooks.checkpoint import Contents, read_session, refuse_another
from fgadahat_hooks.checkpoint.run_metadata import from_json
from fgadahat_hooks.distributed.wrappers import refuse_wrapped
from fgadahat_hooks.errors import BadCallError, DamagedCheckpointError, SpecError, StateMismatchError
from fgadahat_hooks.gates.gate import Gate
from fgadahat_hooks.graph.trace import ExampleInputs
from fgadahat_hooks.session.attach import attach
from fgadahat_hooks.session.session import Session
from fgadahat_hooks.spec.attach_spec import AttachSpec, to_spec


def load(
    model: nn.Module,
    path: str | os.PathLike[str],
    example_inputs: ExampleInputs | None = None,
    callbacks: Iterable[Callback] | None = None,
) -> Session:
    """Attach a model as it was when `session.save` wrote a folder, with all values, tasks and the running task.

    The model is built as for the first `attach`; its values are replaced, on the devices where they are. Everything is
    checked before anything is changed, and nothing in the folder is ever run.

    Args:
        model: The model, not attached, with the same layers, shapes and dtypes. The head may have another number of
            outputs where tasks set theirs by `num_classes`.
        path: The folder.
        example_inputs: What to trace the model with; what the saved session was traced with when left out.
        callbacks: As for `attach`; needed if the saved session had other ones than its spec asks for.

    Returns:
        The session. If it was saved in the middle of a task, `interrupted` names it; `task(..., resume=True)` goes on.

    Raises:
        CheckpointError: There is no saved session in the folder, or it cannot be read.
        DamagedCheckpointError: Files are missing, cut off or changed.
        NewerFormatError: A newer release wrote it.
        StateMismatchError: It is the save of another model; names all differences.
        SpecError: The spec in it is not valid here, for example because a measure is not registered.
        BadCallError: Example inputs or callbacks must be passed.
        TraceError: The model does not take the example inputs that it was attached with, or those passed.
        AlreadyAttachedError: The model carries gates already.
    """
    if not isinstance(model, nn.Module):
        raise BadCallError(f"Expected `model` to be a torch.nn.Module, but got {describe(model)}.")
    refuse_wrapped(model)
    contents = read_session(path)
    spec = _spec(contents, path)
    if not any(isinstance(module, Gate) for module in model.modules()):  # else `attach` says so
        refuse_another(model, contents.manifest.model)
    if callbacks is None:
        _refuse_other_callbacks(contents, spec)
    inputs = contents.example_inputs if example_inputs is None else example_inputs
    if inputs is None:
        raise BadCallError(
            "Expected `example_inputs`, because those of the saved session were no plain tensors and could not be "
            "stored. Pass what you passed to `attach`: load(model, path, example_inputs)."
        )
    with _kept(model):
        session = attach(model, spec, inputs, callbacks)
        try:
            _fill(session, contents)
        except BaseException:
            session.detach()
            raise
    return session


def _spec(contents: Contents, path: str | os.PathLike[str]) -> AttachSpec:
    try:
        return to_spec(contents.manifest.spec)
    except SpecError as error:
        raise SpecError(error.problems, os.fspath(path)) from None


def _refuse_other_callbacks(contents: Contents, spec: AttachSpec) -> None:
    usual, saved = {callback.state_key for callback in default_callbacks(spec)}, set(contents.manifest.callbacks)
    if usual != saved:
        raise BadCallError(
            f"Expected `callbacks`, because the saved session had other ones ({', '.join(sorted(saved)) or 'none'}) "
            "than its spec asks for. Pass what you passed to `attach`: load(model, path, callbacks=[...])."
        )


def _fill(session: Session, contents: Contents) -> None:
    """Put state and values in; the values come last, since nothing can be wrong with them any more."""
    session.load_state_dict(contents.state)
    gates = {f"{name}.hat_gate.embedding": tuple(e.shape) for name, e in session.embeddings.items()}
    wrong = [name for name, shape in gates.items() if _shape(contents.model.get(name)) != shape]
    known = {tensor.name: tuple(tensor.shape) for tensor in contents.manifest.model.tensors}
    wrong += [name for name, shape in known.items() if _shape(contents.model.get(name)) != shape]
    if wrong:
        raise DamagedCheckpointError(
            f"Expected values of {len(gates) + len(known)} tensors, but {len(wrong)} are missing or do not fit, first "
            f"'{wrong[0]}'. Nothing was changed. Take another copy of the folder."
        )
    try:
        session.model.load_state_dict(contents.model)
    except Exception as error:
        raise StateMismatchError(
            f"Expected the model to take its saved values, but its load_state_dict raised {type(error).__name__}: "
            f"{error}. Nothing was changed."
        ) from error
    session._save_id = contents.manifest.id
    with suppress(ValidationError):  # it is for looking only
        session._verified = from_json(contents.manifest.about).verified


def _shape(value: Any) -> tuple[int, ...] | None:
    return tuple(value.shape) if isinstance(value, Tensor) else None


@contextmanager
def _kept(model: nn.Module) -> Iterator[None]:
    """Put the model's own tensors and their values back if the block raises."""
    modules = [m for m in model.modules() if not isinstance(m, torch.jit.ScriptModule)]
    owners = [(module, dict(module._parameters), dict(module._buffers)) for module in modules]
    sizes = [(m, name, value) for m in modules for name, value in vars(m).items() if type(value) is int]
    tables = [table for _, parameters, buffers in owners for table in (parameters, buffers)]
    tensors = {id(t): t for table in tables for t in table.values() if t is not None}
    values = [(t, t.detach().to("cpu", copy=True)) for t in tensors.values() if not t.is_meta]
    try:
        yield
    except BaseException:
        for module, parameters, buffers in owners:
            module._parameters.update(parameters)
            module._buffers.update(buffers)
        for module, name, size in sizes:
            setattr(module, name, size)
        with torch.no_grad():
            for tensor, value in values:
                tensor.copy_(value)
        raise
