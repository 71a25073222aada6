"""Compare a saved state with the session that is to load it, before anything is changed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from fgadahat_hooks.checkpoint.execution_paths import path_problems
from fgadahat_hooks.gates.attached_model import AttachedModel
from fgadahat_hooks.protection.head_outputs import differ_in_outputs
from fgadahat_hooks.tasks.sequence import TaskSequence


def differences(sequence: TaskSequence, state: Mapping[str, Any]) -> Iterator[str]:
    """Yield each difference between the session's model and callbacks and a state of the right form."""
    attached = sequence.attached
    yield from _gated_layers(attached, state)
    yield from _task_tensors(attached, state)
    yield from _frozen_parameters(attached, state)
    yield from _initial_norms(attached, state)
    yield from _callbacks(sequence, state)
    yield from path_problems(sequence, state)


def _gated_layers(attached: AttachedModel, state: Mapping[str, Any]) -> Iterator[str]:
    mine = {name: layer.units for name, layer in attached.graph.layers.items()}
    saved = {layer["name"]: layer["units"] for layer in state["layers"]}
    for name in dict.fromkeys([*saved, *mine]):
        yield from _units(name, mine.get(name), saved.get(name))
    saved_outputs = outputs_at_attach(attached, state["num_classes"])
    for name in sorted(set(attached.outputs) ^ set(saved_outputs)):
        yield f"head '{name}' can be resized in {'the model' if name in attached.outputs else 'the state'} only"
    if mine == saved and list(mine) != list(saved):
        yield "the gated layers come in another order"


def outputs_at_attach(attached: AttachedModel, saved: int | Mapping[str, int] | None) -> dict[str, int]:
    """Return the outputs of each head from a state; earlier releases kept one number, of all heads."""
    if isinstance(saved, Mapping):
        return dict(saved)
    return {} if saved is None else dict.fromkeys(attached.outputs, saved)


def _units(name: str, mine: int | None, saved: int | None) -> Iterator[str]:
    """Compare the number of units of a gated layer in model and state; None where there is no such layer."""
    if mine is None:
        yield f"gated layer '{name}' ({saved} units) is not in the model"
    elif saved is None:
        yield f"gated layer '{name}' ({mine} units) is not in the state"
    elif mine != saved:
        yield f"gated layer '{name}' has {mine} units, the state has {saved}"


def _task_tensors(attached: AttachedModel, state: Mapping[str, Any]) -> Iterator[str]:
    """Compare the names and shapes of the tensors that each task has its own copy of."""
    names = set(attached.tensors.names)
    for owner, tensors in _saved_tensors(state):
        for name in sorted(names ^ set(tensors)):
            yield f"tensor '{name}' of {owner} is {'not in the state' if name in names else 'not one of the model'}"
        for name in sorted(names & set(tensors)):
            mine = attached.tensors.tensor(name).shape
            if not _shapes_fit(attached, name, mine, tensors[name].shape):
                yield f"tensor '{name}' has shape {tuple(mine)}, that of {owner} {tuple(tensors[name].shape)}"


def _saved_tensors(state: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Tensor]]]:
    """Yield the per-task tensors of each task in a state, after words for the task."""
    yield from ((f"task {task['id']!r}", task["tensors"]) for task in state["tasks"])
    if state["running"]:
        yield "the running task", state["running"]["tensors"]


def _shapes_fit(attached: AttachedModel, name: str, mine: torch.Size, saved: torch.Size) -> bool:
    """Compare two shapes; a head that can be resized may have another number of outputs."""
    if mine == saved:
        return True
    resizable = name.rpartition(".")[0] in attached.outputs
    return resizable and differ_in_outputs(attached.model, name, mine, saved)


def _frozen_parameters(attached: AttachedModel, state: Mapping[str, Any]) -> Iterator[str]:
    frozen = set(attached.frozen_names()) if state["frozen"] else set()
    for name in sorted(frozen ^ set(state["frozen"])):
        yield f"parameter '{name}' is frozen in {'the model' if name in frozen else 'the state'} only"


def _initial_norms(attached: AttachedModel, state: Mapping[str, Any]) -> Iterator[str]:
    """Compare the norm tensors that later tasks begin with."""
    mine, saved = attached.initial, state["initial"]
    for name in sorted(set(mine) & set(saved)):
        if mine[name].shape != saved[name].shape:
            yield f"norm tensor '{name}' has another shape in the state"
    heads = {policy.name for policy in attached.policies if policy.role == "head"}  # earlier releases have none
    for name in sorted((set(mine) ^ set(saved)) - heads):
        yield f"norm tensor '{name}' is in {'the model' if name in mine else 'the state'} only"


def _callbacks(sequence: TaskSequence, state: Mapping[str, Any]) -> Iterator[str]:
    """Find states of a running task that no callback of the session would load."""
    known = {callback.state_key for callback in sequence.callbacks.items}
    for key in sorted(set(state["callbacks"]) - known) if state["running"] else ():
        yield f"callback '{key}' of the running task is not one of the session's"
