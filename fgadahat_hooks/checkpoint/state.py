"""The state of a session as plain data, and back: what a checkpoint holds beside the model's own `state_dict`.

It consists of dicts with string keys, lists, strings, numbers, None and tensors, so `torch.load(weights_only=True)`
reads it, and it can be split into tensors and JSON.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import fields
from typing import Any

from pydantic_core import PydanticSerializationError
from torch import Tensor

from fgadahat_hooks.checkpoint.execution_paths import dump_paths, load_paths
from fgadahat_hooks.checkpoint.problems import SHOWN, listed
from fgadahat_hooks.checkpoint.state_differences import differences, outputs_at_attach
from fgadahat_hooks.checkpoint.state_form import form_problems
from fgadahat_hooks.errors import BadCallError, NoTaskError, StateMismatchError, TaskRunningError
from fgadahat_hooks.gates.attached_model import AttachedModel
from fgadahat_hooks.gates.task_state import STATE_VERSION, InterruptedTask, TaskRecord, TaskState
from fgadahat_hooks.tasks.certificate import from_plain
from fgadahat_hooks.tasks.sequence import TaskSequence

FORMAT = "fgadahat_hooks.session"
_KEYS = {"layers", "num_classes", "initial", "tasks", "summed_importance", "frozen", "callbacks", "running", "spec"}


# ------------------------------------------------------------------ dump
def dump_state(sequence: TaskSequence) -> dict[str, Any]:
    """Return everything that is remembered across tasks, and across the steps of the running one.

    Raises:
        NoTaskError: The model has not been traced yet.
        BadCallError: A callback's state is not plain data.
    """
    attached, finished = sequence.attached, sequence.state
    if not attached.traced:
        raise NoTaskError(
            "The model has not been traced yet, so there is no state. Run a batch, or pass example_inputs to attach."
        )
    running = sequence.interrupted if sequence.running is None else sequence.running.snapshot()
    callbacks = sequence.callbacks.state_dict() if running is None else running.callbacks
    _check_callback_states(callbacks)
    return {
        "format": FORMAT,
        "version": STATE_VERSION,
        "spec": _spec(sequence),
        "layers": [{"name": name, "units": layer.units} for name, layer in attached.graph.layers.items()],
        "num_classes": _outputs(attached),
        "initial": dict(attached.initial),
        "tasks": [{"id": task, **_task(record)} for task, record in finished.records.items()],
        "summed_importance": dict(finished.summed_importance),
        "frozen": list(finished.frozen),
        "callbacks": callbacks,
        "running": None if running is None else _without_callbacks(running),
        **dump_paths(sequence),
        **({"row_norms": dict(attached.row_norms)} if attached.row_norms else {}),
        **_certificate(sequence),
        **({"begun": True} if attached.begun and not finished.records and running is None else {}),
    }


def _certificate(sequence: TaskSequence) -> dict[str, Any]:
    return {} if sequence.certificate is None else {"certificate": sequence.certificate.to_plain()}


def _outputs(attached: AttachedModel) -> int | dict[str, int] | None:
    """Return the outputs at attach: one number if all heads have it, as earlier releases wrote."""
    numbers = set(attached.outputs.values())
    alike = len(numbers) == 1 and len(attached.outputs) == len(attached.graph.heads)
    return numbers.pop() if alike else dict(attached.outputs) or None


def _spec(sequence: TaskSequence) -> dict[str, Any]:
    spec = sequence.attached.spec
    try:
        return spec.model_dump(mode="json")
    except PydanticSerializationError:
        raise BadCallError(
            "Expected the parameters of the importance measure to be numbers, text, lists and dicts of them, but got "
            f"{spec.importance.params!r:.80}. A state cannot hold others."
        ) from None


def _task(record: TaskRecord) -> dict[str, Any]:
    """Return the fields of a finished task; notes and reuse only where there are some."""
    return {k: v for k, v in _shallow(record).items() if v or k not in ("notes", "reuse")}


def _shallow(record: TaskRecord | InterruptedTask) -> dict[str, Any]:
    """Return the fields of a record; its tensors are not copied, so that a file holds each of them once."""
    parts = {f.name: getattr(record, f.name) for f in fields(record)}
    return {name: dict(part) if isinstance(part, dict) else part for name, part in parts.items()}


def _without_callbacks(running: InterruptedTask) -> dict[str, Any]:
    """Return the fields of a running task but its callbacks' states; those that may be left out only where needed."""
    optional = {"length": {}, "travel": 0.0, "inputs_missing": ""}
    parts = {name: part for name, part in _shallow(running).items() if name not in ("callbacks", "inputs")}
    parts = {name: part for name, part in parts.items() if name not in optional or part != optional[name]}
    return {**parts, "inputs": running.inputs} if running.inputs else parts


def _check_callback_states(states: Mapping[str, Any]) -> None:
    wrong = [f"'{key}' at {place}" for key, state in states.items() for place in _not_plain(state)]
    if wrong:
        raise BadCallError(
            "Expected the state of each callback to hold tensors, numbers, strings, None, lists and dicts with str "
            f"keys, but that of callback {', '.join(wrong[:SHOWN])} is something else. Change its state_dict."
        )


def _not_plain(value: Any, where: str = "") -> Iterator[str]:
    """Yield the place of everything in a nested value that is not plain data."""
    if isinstance(value, Mapping):
        for key, part in value.items():
            if not isinstance(key, str):
                yield f"{where}[{key!r}]"
            yield from _not_plain(part, f"{where}[{key!r}]")
    elif isinstance(value, list | tuple):
        for place, part in enumerate(value):
            yield from _not_plain(part, f"{where}[{place}]")
    elif not isinstance(value, str | int | float | Tensor | None):
        yield f"{where} ({type(value).__name__})"


# ------------------------------------------------------------------ load
def load_state(sequence: TaskSequence, state: Any) -> None:
    """Replace the session's state by a saved one; the model's values are left alone.

    Raises:
        NoTaskError: The model has not been traced yet.
        TaskRunningError: A task is running.
        StateMismatchError: It is not such a state, or that of another model; names all differences.
    """
    _check_can_load(sequence)
    _check_format(state)
    problems = form_problems(state) or list(differences(sequence, state))
    if problems:
        raise StateMismatchError(
            "Expected the state of a session on this model, but they differ. Nothing was changed. Build the model and "
            "attach it as it was when the state was saved." + listed(problems)
        )
    records = {task["id"]: TaskRecord(**{k: v for k, v in task.items() if k != "id"}) for task in state["tasks"]}
    running = state["running"]
    _load_callbacks(sequence, state["callbacks"])
    sequence.state = TaskState(records, dict(state["summed_importance"]), list(state["frozen"]))
    certificate = state.get("certificate")
    sequence.certificate = None if certificate is None else from_plain(certificate)
    sequence.attached.initial |= state["initial"]
    sequence.attached.outputs = outputs_at_attach(sequence.attached, state["num_classes"])
    sequence.attached.row_norms |= state.get("row_norms", {})
    sequence.attached.begun = bool(state.get("begun") or records or running)
    load_paths(sequence, state)
    sequence.interrupted = None if running is None else InterruptedTask(**running, callbacks=state["callbacks"])
    sequence.set_idle_mode()


def _check_can_load(sequence: TaskSequence) -> None:
    if not sequence.attached.traced:
        raise NoTaskError(
            "The model has not been traced yet, so a state cannot be compared with it. Pass example_inputs to attach."
        )
    if sequence.running is not None:
        raise TaskRunningError(f"Task {sequence.running.id!r} is running; leave its block before loading a state.")


def _check_format(state: Any) -> None:
    if not isinstance(state, Mapping) or state.get("format") != FORMAT:
        raise StateMismatchError(
            f"Expected what `session.state_dict()` returned, but got {type(state).__name__}. Nothing was changed."
        )
    if state.get("version") != STATE_VERSION:
        raise StateMismatchError(
            f"Expected a state of version {STATE_VERSION}, but got {state.get('version')!r}. Nothing was changed. Read "
            "it with the release that wrote it."
        )
    missing = sorted(_KEYS - set(state))
    if missing:
        raise StateMismatchError(f"Expected a whole state, but it lacks {', '.join(missing)}. Nothing was changed.")


def _load_callbacks(sequence: TaskSequence, states: Mapping[str, Any]) -> None:
    """Load the states of the callbacks, all or none; those of an interrupted task are loaded again when it resumes.

    Raises:
        StateMismatchError: A callback does not take its state.
    """
    before = sequence.callbacks.state_dict()
    try:
        sequence.callbacks.load_state_dict(states)
    except Exception as error:
        with suppress(Exception):  # the callback that raised may raise again
            sequence.callbacks.load_state_dict(before)
        raise StateMismatchError(
            f"Expected the callbacks to take the states that were saved ({', '.join(states)}), but one raised "
            f"{type(error).__name__}: {error}. Nothing was changed. Attach the callbacks that were there when the "
            "state was saved."
        ) from error
