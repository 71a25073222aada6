"""A run as plain data, for inspection: read from a live session, or from a saved folder without its model."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor

from fgadahat_hooks.checkpoint import class_name, library_version, read_plain_extra, read_session, saved_spec
from fgadahat_hooks.checkpoint.run_metadata import RunMetadata, from_json
from fgadahat_hooks.checkpoint.state_form import form_problems
from fgadahat_hooks.errors import DamagedCheckpointError
from fgadahat_hooks.gates.task_state import TaskId
from fgadahat_hooks.protection.plan import Plan
from fgadahat_hooks.session.session import Session
from fgadahat_hooks.spec.attach_spec import AttachSpec
from fgadahat_hooks.summary.accuracy_input import accuracy_matrix
from fgadahat_hooks.verify import VerifyReport

ACCURACY = "accuracy"
"""The name under which a training loop may save its accuracy matrix: `session.save(path, extra={"accuracy": rows})`."""


@dataclass(frozen=True)
class RunSummary:
    """All that can be inspected of a run, on the CPU.

    Attributes:
        model: Class of the model, with its module.
        library: Version of this library.
        torch: Version of torch.
        spec: The spec.
        tasks: Ids of the finished tasks, in the order they were learnt.
        interrupted: Id of the task that is running, or that the saved state is in the middle of.
        layers: Number of units of each gated layer, in order of execution.
        masks: Binary masks of each finished task, `(units,)` bool a layer.
        importance: Importance of each layer's units for each finished task, `(units,)`; empty without importances.
        summed_importance: The importances as the summation strategy summed them, `(units,)` a layer.
        capacity: Network capacity when each task had ended; None where it cannot be computed.
        rates: Mean adjustment rate of each gated weight and bias when each task had ended, by parameter name.
        notes: What a user should know of how each task went, a sentence each.
        reuse: Of each layer that reads gated units, the share of each task's signal that comes from earlier tasks.
        plan: What is gated where, and how every tensor is protected; None in folders of early releases.
        verified: What the last `session.verify` found; None if there was none.
        accuracy: `(tasks, tasks)` float64, accuracy on task j after learning task i, NaN where it was not measured;
            None if none were passed or saved.
    """

    model: str
    library: str
    torch: str
    spec: AttachSpec
    tasks: tuple[TaskId, ...]
    interrupted: TaskId | None
    layers: dict[str, int]
    masks: dict[TaskId, dict[str, Tensor]]
    importance: dict[TaskId, dict[str, Tensor]] = field(default_factory=dict)
    summed_importance: dict[str, Tensor] = field(default_factory=dict)
    capacity: dict[TaskId, float | None] = field(default_factory=dict)
    rates: dict[TaskId, dict[str, float]] = field(default_factory=dict)
    notes: dict[TaskId, tuple[str, ...]] = field(default_factory=dict)
    reuse: dict[TaskId, dict[str, float]] = field(default_factory=dict)
    plan: Plan | None = None
    verified: VerifyReport | None = None
    accuracy: Tensor | None = None

    def unit_use(self) -> dict[str, dict[TaskId, float]]:
        """Return for each layer the fraction of its units that each task uses."""
        return {
            layer: {task: float(self.masks[task][layer].double().mean()) for task in self.tasks}
            for layer in self.layers
        }

    def use_after(self) -> tuple[float, ...]:
        """Return the fraction of all gated units that the first t tasks use, for each t."""
        used, out = torch.zeros(sum(self.layers.values()), dtype=torch.bool), []
        for task in self.tasks:
            used = used | self._mask_of_all_units(task)
            out.append(float(used.double().mean()))
        return tuple(out)

    def overlap(self) -> Tensor:
        """Return which fraction of task i's units task j uses too, `(tasks, tasks)`; NaN where i uses none."""
        if not self.tasks:
            return torch.zeros(0, 0, dtype=torch.float64)
        masks = torch.stack([self._mask_of_all_units(task) for task in self.tasks]).double()
        return masks @ masks.T / masks.sum(1, keepdim=True)

    def _mask_of_all_units(self, task: TaskId) -> Tensor:
        parts = [self.masks[task][layer] for layer in self.layers]
        return torch.cat(parts) if parts else torch.zeros(0, dtype=torch.bool)


def summarize(session: Session, accuracy: Any = None) -> RunSummary:
    """Return the summary of a live session.

    Args:
        session: The session.
        accuracy: The accuracy matrix, `(tasks, tasks)`: nested lists with None or NaN where nothing was measured, a
            tensor, an array, or a `metrics.AccuracyMatrix`.

    Raises:
        NoTaskError: The model has not been traced yet.
        BadCallError: The accuracies are no such matrix.
    """
    graph, tasks, metadata = session.graph, session.tasks, session.run_metadata()
    capacity, rates = _after_each(tasks, metadata)
    return RunSummary(
        model=class_name(session.model),
        library=library_version(),
        torch=str(torch.__version__),
        spec=session.spec,
        tasks=tasks,
        interrupted=session.interrupted if session.running is None else session.running,
        layers={name: layer.units for name, layer in graph.layers.items()},
        masks={task: _on_cpu(session.masks(task)) for task in tasks},
        importance={task: _on_cpu(session.importance(task)) for task in tasks},
        summed_importance=_on_cpu(session.summed_importance),
        capacity=capacity,
        rates=rates,
        notes={task: session.notes(task) for task in tasks},
        reuse={task: session.reuse(task) for task in tasks},
        plan=metadata.plan,
        verified=metadata.verified,
        accuracy=accuracy_matrix(accuracy, len(tasks)),
    )


def read_summary(path: str | os.PathLike[str], accuracy: Any = None) -> RunSummary:
    """Return the summary of a folder that `session.save` wrote; needs no model, and runs no code of the folder.

    Args:
        path: The folder.
        accuracy: As for `summarize`; what the training loop saved as `extra={"accuracy": rows}` when left out.

    Raises:
        CheckpointError: There is no saved session in the folder, or it cannot be read.
        DamagedCheckpointError: Files are missing, cut off or changed.
        NewerFormatError: A newer release wrote it.
        SpecError: The spec in it is not valid here, for example because a measure is not registered.
        BadCallError: The accuracies are no matrix of the folder's tasks.
    """
    contents = read_session(path)
    manifest, state = contents.manifest, contents.state
    metadata = _metadata(manifest.about, path)
    problems = form_problems(state)
    if problems:
        raise _damaged(path, problems[0])
    spec = saved_spec(contents, path)
    if accuracy is None:
        accuracy = read_plain_extra(path).get(ACCURACY)
    records = {task["id"]: task for task in state["tasks"]}
    tasks = tuple(records)
    capacity, rates = _after_each(tasks, metadata)
    return RunSummary(
        model=manifest.model.class_name,
        library=manifest.library,
        torch=manifest.torch,
        spec=spec,
        tasks=tasks,
        interrupted=None if state["running"] is None else state["running"]["id"],
        layers={layer["name"]: layer["units"] for layer in state["layers"]},
        masks={task: _on_cpu(record["masks"]) for task, record in records.items()},
        importance={task: _on_cpu(record["importance"]) for task, record in records.items()},
        summed_importance=_on_cpu(state["summed_importance"]),
        capacity=capacity,
        rates=rates,
        notes={task: tuple(record.get("notes", ())) for task, record in records.items()},
        reuse={task: dict(record.get("reuse", {})) for task, record in records.items()},
        plan=metadata.plan,
        verified=metadata.verified,
        accuracy=accuracy_matrix(accuracy, len(tasks)),
    )


def _metadata(value: Any, path: str | os.PathLike[str]) -> RunMetadata:
    """Return the metadata of a saved run.

    Raises:
        DamagedCheckpointError: It cannot be read.
    """
    try:
        return from_json(value)
    except ValidationError as error:
        raise _damaged(path, str(error.errors(include_url=False, include_input=False)[0]["msg"])) from None


def _damaged(path: str | os.PathLike[str], what: str) -> DamagedCheckpointError:
    return DamagedCheckpointError(
        f"Expected a run as `session.save` writes it in {os.fspath(path)!r}, but something in it is not: {what}. Take "
        "another copy of the folder."
    )


def _after_each(
    tasks: tuple[TaskId, ...], metadata: RunMetadata
) -> tuple[dict[TaskId, float | None], dict[TaskId, dict[str, float]]]:
    """Return the capacity and the rates after each task, None and empty where they are not known."""
    known = dict(zip(tasks, metadata.after, strict=False))
    capacity = {task: known[task].capacity if task in known else None for task in tasks}
    return capacity, {task: known[task].rates if task in known else {} for task in tasks}


def _on_cpu(values: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.detach().cpu() for name, value in values.items()}
