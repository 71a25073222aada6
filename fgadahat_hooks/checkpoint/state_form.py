"""The form that a saved state must have before anything in it is used: keys, types, and sizes that agree."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import Tensor

from fgadahat_hooks.checkpoint.problems import validation_problems

_Id = Annotated[str, Field(min_length=1)] | int
_Outputs = Annotated[int, Field(ge=1)]
_Classes = _Outputs | dict[str, _Outputs] | None
_Count = Annotated[int, Field(ge=0)]
_Tensors = dict[str, Tensor]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, arbitrary_types_allowed=True)


class _Layer(_Part):
    name: str
    units: _Count


class _Task(_Part):
    id: _Id
    masks: _Tensors
    tensors: _Tensors
    importance: _Tensors
    num_classes: _Classes
    notes: list[str] = Field(default_factory=list)  # states of earlier releases have none
    reuse: dict[str, float] = Field(default_factory=dict)  # nor these


class _Running(_Part):
    id: _Id
    num_classes: _Classes
    scale: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    annealed: bool
    steps: _Count
    tensors: _Tensors
    embeddings: _Tensors
    inputs: list[dict[str, Any]] | None = None  # nor these
    length: dict[str, _Count] = Field(default_factory=dict)
    travel: float | None = 0.0
    inputs_missing: str = ""


class _InputMap(_Part):
    features: _Count
    live: Tensor
    feature: Tensor
    unit: Tensor
    group: Tensor | None


class _ExecutionPaths(_Part):
    inputs: dict[str, _InputMap]
    whole: list[str]


class _ReadEntries(_Part):
    units: Tensor
    inputs: Tensor | None


class _CertifiedTask(_Part):
    id: _Id
    outputs: dict[str, str]
    tensors: dict[str, str]
    reads: dict[str, _ReadEntries]


class _Certificate(_Part):
    inputs: Any
    environment: dict[str, str]
    tasks: list[_CertifiedTask]


class _State(_Part):
    format: str
    version: int
    spec: dict[str, Any]
    layers: list[_Layer]
    num_classes: _Classes
    initial: _Tensors
    tasks: list[_Task]
    summed_importance: _Tensors
    frozen: list[str]
    callbacks: dict[str, dict[str, Any]]
    running: _Running | None
    row_norms: _Tensors = Field(default_factory=dict)  # nor these
    begun: bool = False
    certificate: _Certificate | None = None
    ways: _ExecutionPaths | None = None  # the key that saved files have


def form_problems(state: Mapping[str, Any]) -> list[str]:
    """Return what is wrong with a state's form, each with its place: wrong types, or else sizes that disagree."""
    try:
        _State.model_validate(dict(state))
    except (ValidationError, RecursionError) as error:
        return validation_problems(error)
    return [*_duplicates(state), *_units(state)]


def _duplicates(state: Mapping[str, Any]) -> Iterator[str]:
    """Find ids of tasks and names of layers that occur twice."""
    ids = [task["id"] for task in state["tasks"]]
    ids += [state["running"]["id"]] if state["running"] else []
    yield from (f"task {task!r} comes twice" for task in dict.fromkeys(ids) if ids.count(task) > 1)
    names = [layer["name"] for layer in state["layers"]]
    yield from (f"layer '{name}' comes twice" for name in dict.fromkeys(names) if names.count(name) > 1)


def _units(state: Mapping[str, Any]) -> Iterator[str]:
    """Check whatever has one value per unit: that no layer is missing, and the number of units of each."""
    units = {layer["name"]: layer["units"] for layer in state["layers"]}
    for task in state["tasks"]:
        yield from _per_unit(task["masks"], units, f"masks of task {task['id']!r}", torch.bool)
        if task["importance"]:
            yield from _per_unit(task["importance"], units, f"importance of task {task['id']!r}")
    if state["summed_importance"]:
        yield from _per_unit(state["summed_importance"], units, "summed importance")
    if state["running"]:
        yield from _per_unit(state["running"]["embeddings"], units, "embeddings of the running task")


def _per_unit(
    values: Mapping[str, Tensor], units: Mapping[str, int], what: str, dtype: torch.dtype | None = None
) -> Iterator[str]:
    for name in sorted(units.keys() ^ values.keys()):
        yield f"{what}: layer '{name}' is {'missing' if name in units else 'unknown'}"
    for name in sorted(units.keys() & values.keys()):
        value = values[name]
        right = value.is_floating_point() if dtype is None else value.dtype is dtype
        if tuple(value.shape) != (units[name],) or not right:
            yield f"{what}: '{name}' is {tuple(value.shape)} of {value.dtype}, expected ({units[name]},)"
