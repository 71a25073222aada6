"""The state of a session as plain data, and back: what a checkpoint holds beside the model's own `state_dict`.

Nothing but dicts with strings as keys, lists, strings, numbers, None and tensors: `torch.load(weights_only=True)` reads
it, and it can be split into tensors and JSON.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import fields
from typing import Any

import torch
from pydantic_core import PydanticSerializationError
from torch import Tensor

from fgadahat_hooks.checkpoint.execution_paths import dump_paths, load_paths, path_problems
from fgadahat_hooks.checkpoint.state_form import form_problems
from fgadahat_hooks.errors import BadCallError, NoTaskError, StateMismatchError, TaskRunningError
from fgadahat_hooks.gates.task_state import STATE_VERSION, InterruptedTask, TaskRecord, TaskState
from fgadahat_hooks.protection.heads import differ_in_outputs
from fgadahat_hooks.tasks.sequence import TaskSequence

FORMAT = "fgadahat_hooks.session"
_KEYS = {"layers", "num_classes", "initial", "tasks", "summed_importance", "frozen", "callbacks", "running", "spec"}
_SHOWN = 10
"""How many differences an error names."""


def dump_state(sequence: TaskSequence) -> dict[str, Any]:
    """Return everything that is remembered across tasks, and across the steps of the running one.

    Raises:
        NoTaskError: The model has not been traced yet.
        BadCallError: A callback's state is not plain data.
    """
    if not sequence.attached.traced:
        raise NoTaskError(
            "The model has not been traced yet, so there is no state. Run a batch, or pass example_inputs to attach."
        )
    running = sequence.interrupted if sequence.running is None else sequence.running.snapshot()
    callbacks = sequence.callbacks.state_dict() if running is None else running.callbacks
    odd = [f"'{key}' at {where}" for key, state in callbacks.items() for where in _odd(state)]
    if odd:
        raise BadCallError(
            "Expected the state of each callback to hold tensors, numbers, strings, None, lists and dicts with str "
            f"keys, but that of callback {', '.join(odd[:_SHOWN])} is something else. Change its state_dict."
        )
    return {
        "format": FORMAT,
        "version": STATE_VERSION,
        "spec": _spec(sequence),
        "layers": [{"name": name, "units": layer.units} for name, layer in sequence.attached.graph.layers.items()],
        "num_classes": sequence.attached.num_classes,
        "initial": dict(sequence.attached.initial),
        "tasks": [{"id": task, **_shallow(record)} for task, record in sequence.state.records.items()],
        "summed_importance": dict(sequence.state.summed_importance),
        "frozen": list(sequence.state.frozen),
        "callbacks": callbacks,
        "running": None if running is None else {k: v for k, v in _shallow(running).items() if k != "callbacks"},
        **dump_paths(sequence),
    }


def _spec(sequence: TaskSequence) -> dict[str, Any]:
    try:
        return sequence.attached.spec.model_dump(mode="json")
    except PydanticSerializationError:
        raise BadCallError(
            "Expected the parameters of the importance measure to be numbers, text, lists and dicts of them, but got "
            f"{sequence.attached.spec.importance.params!r:.80}. A state cannot hold others."
        ) from None


def _shallow(record: TaskRecord | InterruptedTask) -> dict[str, Any]:
    """Return the fields of a record; its tensors stay shared, so that a file holds each of them once."""
    parts = {f.name: getattr(record, f.name) for f in fields(record)}
    return {name: dict(part) if isinstance(part, dict) else part for name, part in parts.items()}


def _odd(value: Any, where: str = "") -> Iterator[str]:
    """Give the places of what is not plain data."""
    if isinstance(value, Mapping):
        for key, part in value.items():
            if not isinstance(key, str):
                yield f"{where}[{key!r}]"
            yield from _odd(part, f"{where}[{key!r}]")
    elif isinstance(value, list | tuple):
        for place, part in enumerate(value):
            yield from _odd(part, f"{where}[{place}]")
    elif not isinstance(value, str | int | float | Tensor | None):
        yield f"{where} ({type(value).__name__})"


# ------------------------------------------------------------------ the way back
def load_state(sequence: TaskSequence, state: Any) -> None:
    """Put a saved state in place of the session's own; the model's values are left alone.

    Raises:
        NoTaskError: The model has not been traced yet.
        TaskRunningError: A task is running.
        StateMismatchError: It is no such state, or that of another model; names all differences.
    """
    if not sequence.attached.traced:
        raise NoTaskError(
            "The model has not been traced yet, so a state cannot be compared with it. Pass example_inputs to attach."
        )
    if sequence.running is not None:
        raise TaskRunningError(f"Task {sequence.running.id!r} is running; leave its block before loading a state.")
    _check_format(state)
    wrong = form_problems(state)
    if not wrong:
        wrong = [*_layers(sequence, state), *_tensors(sequence, state), *_callbacks(sequence, state)]
        wrong += path_problems(sequence, state)
    if wrong:
        more = f"\n  and {len(wrong) - _SHOWN} more" if len(wrong) > _SHOWN else ""
        raise StateMismatchError(
            "Expected the state of a session on this model, but they differ. Nothing was changed. Build the model and "
            "attach it as it was when the state was saved.\n  " + "\n  ".join(wrong[:_SHOWN]) + more
        )
    records = {task["id"]: TaskRecord(**{k: v for k, v in task.items() if k != "id"}) for task in state["tasks"]}
    running = state["running"]
    _load_callbacks(sequence, state["callbacks"])
    sequence.state.become(TaskState(records, dict(state["summed_importance"]), list(state["frozen"])))
    sequence.attached.initial, sequence.attached.num_classes = dict(state["initial"]), state["num_classes"]
    load_paths(sequence, state)
    sequence.interrupted = None if running is None else InterruptedTask(**running, callbacks=state["callbacks"])
    sequence.rest()


def _load_callbacks(sequence: TaskSequence, states: Mapping[str, Any]) -> None:
    """Let the callbacks take their states, all or none; one whose task goes on takes it again then.

    Raises:
        StateMismatchError: A callback does not take its state.
    """
    before = sequence.callbacks.state_dict()
    try:
        sequence.callbacks.load_state_dict(states)
    except Exception as error:
        with suppress(Exception):  # the one that raised may raise again
            sequence.callbacks.load_state_dict(before)
        raise StateMismatchError(
            f"Expected the callbacks to take the states that were saved ({', '.join(states)}), but one raised "
            f"{type(error).__name__}: {error}. Nothing was changed. Attach the callbacks that were there when the "
            "state was saved."
        ) from error


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


def _layers(sequence: TaskSequence, state: Mapping[str, Any]) -> Iterator[str]:
    """Compare the gated layers, and what there is for each of them."""
    mine = {name: layer.units for name, layer in sequence.attached.graph.layers.items()}
    saved = {layer["name"]: layer["units"] for layer in state["layers"]}
    for name in [*saved, *(n for n in mine if n not in saved)]:
        if name not in mine:
            yield f"gated layer '{name}' ({saved[name]} units) is not in the model"
        elif name not in saved:
            yield f"gated layer '{name}' ({mine[name]} units) is not in the state"
        elif mine[name] != saved[name]:
            yield f"gated layer '{name}' has {mine[name]} units, the state has {saved[name]}"
    if (sequence.attached.num_classes is None) != (state["num_classes"] is None):
        yield "the head can be resized in the model or in the state only"
    if mine == saved and list(mine) != list(saved):
        yield "the gated layers come in another order"


def _tensors(sequence: TaskSequence, state: Mapping[str, Any]) -> Iterator[str]:
    """Compare the tensors that every task has for itself, and those that are frozen."""
    names = set(sequence.attached.tensors.names)
    kept = [(f"task {task['id']!r}", task["tensors"]) for task in state["tasks"]]
    kept += [("the running task", state["running"]["tensors"])] if state["running"] else []
    for whose, tensors in kept:
        for name in sorted(names ^ set(tensors)):
            yield f"tensor '{name}' of {whose} is {'not in the state' if name in names else 'not one of the model'}"
        for name in sorted(names & set(tensors)):
            live = sequence.attached.tensors.tensor(name).shape
            if not _fits(sequence, name, live, tensors[name].shape):
                yield f"tensor '{name}' has shape {tuple(live)}, that of {whose} {tuple(tensors[name].shape)}"
    frozen = set(sequence.attached.frozen_names()) if state["frozen"] else set()
    for name in sorted(frozen ^ set(state["frozen"])):
        yield f"parameter '{name}' is frozen in {'the model' if name in frozen else 'the state'} only"
    for name in sorted(set(sequence.attached.initial) & set(state["initial"])):
        if sequence.attached.initial[name].shape != state["initial"][name].shape:
            yield f"norm tensor '{name}' has another shape in the state"
    for name in sorted(set(sequence.attached.initial) ^ set(state["initial"])):
        yield f"norm tensor '{name}' is in {'the model' if name in sequence.attached.initial else 'the state'} only"


def _fits(sequence: TaskSequence, name: str, live: torch.Size, saved: torch.Size) -> bool:
    """Compare two shapes; a head that can be resized may have another number of outputs."""
    if live == saved:
        return True
    resizable = sequence.attached.num_classes is not None and name.rpartition(".")[0] in sequence.attached.graph.heads
    return resizable and differ_in_outputs(sequence.attached.model, name, live, saved)


def _callbacks(sequence: TaskSequence, state: Mapping[str, Any]) -> Iterator[str]:
    """Look for states of a running task that no callback of the session would take."""
    known = {callback.state_key for callback in sequence.callbacks.items}
    for key in sorted(set(state["callbacks"]) - known) if state["running"] else ():
        yield f"callback '{key}' of the running task is not one of the session's"
