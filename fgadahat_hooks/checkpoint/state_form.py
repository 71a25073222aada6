"""What a saved state must look like before anything in it is used."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import Tensor

_Id = Annotated[str, Field(min_length=1)] | int
_Classes = Annotated[int, Field(ge=1)] | None
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


class _Running(_Part):
    id: _Id
    num_classes: _Classes
    scale: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    annealed: bool
    steps: _Count
    tensors: _Tensors
    embeddings: _Tensors


class _Map(_Part):
    features: _Count
    live: Tensor
    feature: Tensor
    unit: Tensor
    group: Tensor | None


class _Ways(_Part):
    inputs: dict[str, _Map]
    whole: list[str]


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
    ways: _Ways | None = None


def form_problems(state: Mapping[str, Any]) -> list[str]:
    """Return what is not as it should be, each with its place; the first kind of problem found, completely."""
    try:
        _State.model_validate(dict(state))
    except (ValidationError, RecursionError) as error:
        found = error.errors(include_url=False, include_input=False) if isinstance(error, ValidationError) else []
        return [f"{'.'.join(map(str, one['loc']))[:80]}: {one['msg']}" for one in found] or ["it is nested too deeply"]
    return [*_ids(state), *_units(state)]


def _ids(state: Mapping[str, Any]) -> Iterator[str]:
    ids = [task["id"] for task in state["tasks"]]
    ids += [state["running"]["id"]] if state["running"] else []
    yield from (f"task {task!r} comes twice" for task in dict.fromkeys(ids) if ids.count(task) > 1)
    names = [layer["name"] for layer in state["layers"]]
    yield from (f"layer '{name}' comes twice" for name in dict.fromkeys(names) if names.count(name) > 1)


def _units(state: Mapping[str, Any]) -> Iterator[str]:
    """Look at whatever has one value a unit: a complete set of layers, the right numbers of units."""
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
