"""Load a saved session onto a new model."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

from pydantic import ValidationError
from torch import Tensor, nn

from fgadahat_hooks.callbacks import Callback
from fgadahat_hooks.callbacks.lists import default_callbacks, describe
from fgadahat_hooks.checkpoint import Contents, read_session, refuse_other_model, saved_spec
from fgadahat_hooks.checkpoint.run_metadata import RunMetadata, from_json
from fgadahat_hooks.distributed.wrappers import refuse_wrapped
from fgadahat_hooks.errors import BadCallError, DamagedCheckpointError, StateMismatchError
from fgadahat_hooks.gates.gate import Gate
from fgadahat_hooks.graph.trace import ExampleInputs
from fgadahat_hooks.session.attach import attach
from fgadahat_hooks.session.model_snapshot import restored_on_error
from fgadahat_hooks.session.session import Session
from fgadahat_hooks.spec.attach_spec import AttachSpec


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
    spec = saved_spec(contents, path)
    if not any(isinstance(module, Gate) for module in model.modules()):  # else `attach` raises
        refuse_other_model(model, contents.manifest.model)
    if callbacks is None:
        _refuse_other_callbacks(contents, spec)
    inputs = contents.example_inputs if example_inputs is None else example_inputs
    if inputs is None:
        raise BadCallError(
            "Expected `example_inputs`, because those of the saved session were no plain tensors and could not be "
            "stored. Pass what you passed to `attach`: load(model, path, example_inputs)."
        )
    with restored_on_error(model):
        session = attach(model, spec, inputs, callbacks)
        try:
            _load_contents(session, contents)
        except BaseException:
            session.detach()
            raise
    return session


def _refuse_other_callbacks(contents: Contents, spec: AttachSpec) -> None:
    default, saved = {callback.state_key for callback in default_callbacks(spec)}, set(contents.manifest.callbacks)
    if default != saved:
        raise BadCallError(
            f"Expected `callbacks`, because the saved session had other ones ({', '.join(sorted(saved)) or 'none'}) "
            "than its spec asks for. Pass what you passed to `attach`: load(model, path, callbacks=[...])."
        )


def _load_contents(session: Session, contents: Contents) -> None:
    """Load the state of the session, then the values of its model."""
    session.load_state_dict(contents.state)
    _check_values(session, contents)
    try:
        session.model.load_state_dict(contents.model)
    except Exception as error:
        raise StateMismatchError(
            f"Expected the model to take its saved values, but its load_state_dict raised {type(error).__name__}: "
            f"{error}. Nothing was changed."
        ) from error
    session._sequence.keep_weights()
    metadata = RunMetadata()
    with suppress(ValidationError):  # only for inspection, so a session loads without it
        metadata = from_json(contents.manifest.about)
    session._mark_loaded(contents.manifest.id, metadata)


def _check_values(session: Session, contents: Contents) -> None:
    """Check that there are values for every tensor of the model and its gates, in the right shapes."""
    gates = {f"{name}.hat_gate.embedding": tuple(e.shape) for name, e in session.embeddings.items()}
    own = {tensor.name: tuple(tensor.shape) for tensor in contents.manifest.model.tensors}
    shapes = [*gates.items(), *own.items()]
    wrong = [name for name, shape in shapes if _shape(contents.model.get(name)) != shape]
    if wrong:
        raise DamagedCheckpointError(
            f"Expected values of {len(shapes)} tensors, but {len(wrong)} are missing or do not fit, first "
            f"'{wrong[0]}'. Nothing was changed. Take another copy of the folder."
        )


def _shape(value: Any) -> tuple[int, ...] | None:
    return tuple(value.shape) if isinstance(value, Tensor) else None
