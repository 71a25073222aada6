"""All that there is to look at of a run, as plain data: of a live session, or of a saved folder without its model."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor

from fgadahat_hooks.checkpoint import describe, library_version, read_plain_extra, read_session
from fgadahat_hooks.checkpoint.run_metadata import RunMetadata, from_json
from fgadahat_hooks.checkpoint.state_form import form_problems
from fgadahat_hooks.errors import BadCallError, DamagedCheckpointError, SpecError
from fgadahat_hooks.gates.task_state import TaskId
from fgadahat_hooks.protection.plan import Plan
from fgadahat_hooks.session.session import Session
from fgadahat_hooks.spec.attach_spec import AttachSpec, to_spec
from fgadahat_hooks.verify import VerifyReport

ACCURACY = "accuracy"
"""The name under which a loop may save its accuracy matrix: `session.save(path, extra={"accuracy": rows})`."""


@dataclass(frozen=True)
class RunSummary:
    """All that there is to look at of a run, on the CPU.

    Attributes:
        model: Class of the model, with its module.
        library: Version of this library that made the run.
        torch: Version of torch.
        spec: The spec.
        tasks: Ids of the finished tasks, in the order they were learnt.
        interrupted: Id of the task that is running, or that the save is in the middle of.
        layers: Number of units of each gated layer, in order of execution.
        masks: Binary masks of each finished task, `(units,)` bool a layer.
        importance: Importance of each layer's units for each finished task, `(units,)`; empty without importances.
        summed_importance: What the summation strategy made of them, `(units,)` a layer.
        capacity: Network capacity when each task had ended; None where it cannot be told.
        rates: Mean adjustment rate of each gated weight and bias when each task had ended, by parameter name.
        plan: What is gated where, and how every tensor is protected; None in folders of early releases.
        verified: What the last `session.verify` found; None if there was none.
        accuracy: `(tasks, tasks)` float64, accuracy on task j after learning task i, NaN where it was not measured;
            None if nobody told.
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
            used = used | self._joined(task)
            out.append(float(used.double().mean()))
        return tuple(out)

    def overlap(self) -> Tensor:
        """Return which fraction of task i's units task j uses too, `(tasks, tasks)`; NaN where i uses none."""
        if not self.tasks:
            return torch.zeros(0, 0, dtype=torch.float64)
        masks = torch.stack([self._joined(task) for task in self.tasks]).double()
        return masks @ masks.T / masks.sum(1, keepdim=True)

    def _joined(self, task: TaskId) -> Tensor:
        parts = [self.masks[task][layer] for layer in self.layers]
        return torch.cat(parts) if parts else torch.zeros(0, dtype=torch.bool)


def summarize(session: Session, accuracy: Any = None) -> RunSummary:
    """Look at a live session.

    Args:
        session: The session.
        accuracy: The accuracy matrix, `(tasks, tasks)`: nested lists with None or NaN where nothing was measured, a
            tensor, an array, or a `metrics.AccuracyMatrix`.

    Raises:
        NoTaskError: The model has not been traced yet.
        BadCallError: The accuracies are no such matrix.
    """
    _ = session.graph  # raises if there is none yet
    running = session._sequence.running
    kind, versions = describe(session.model), (library_version(), str(torch.__version__))
    current = running.id if running is not None else session.interrupted
    layers = {name: layer.units for name, layer in session.graph.layers.items()}
    tasks = session.tasks
    found = session._metadata()
    return RunSummary(
        kind,
        *versions,
        session.spec,
        tasks,
        current,
        layers,
        {task: _on_cpu(session.masks(task)) for task in tasks},
        {task: _on_cpu(session.importance(task)) for task in tasks},
        _on_cpu(session._sequence.state.summed_importance),
        *_after(tasks, found),
        found.plan,
        found.verified,
        accuracy_matrix(accuracy, len(tasks)),
    )


def read_summary(path: str | os.PathLike[str], accuracy: Any = None) -> RunSummary:
    """Look at a folder that `session.save` wrote; the model is not needed, and nothing in the folder is ever run.

    Args:
        path: The folder.
        accuracy: As for `summarize`; what the loop saved as `extra={"accuracy": rows}` when left out.

    Raises:
        CheckpointError: There is no saved session in the folder, or it cannot be read.
        DamagedCheckpointError: Files are missing, cut off or changed.
        NewerFormatError: A newer release wrote it.
        SpecError: The spec in it is not valid here, for example because a measure is not registered.
        BadCallError: The accuracies are no matrix of the folder's tasks.
    """
    contents = read_session(path)
    manifest, state = contents.manifest, contents.state
    found = _metadata(manifest.about, path)
    wrong = form_problems(state)
    if wrong:
        raise _damaged(path, wrong[0])
    try:
        spec = to_spec(manifest.spec)
    except SpecError as error:
        raise SpecError(error.problems, os.fspath(path)) from None
    if accuracy is None:
        accuracy = read_plain_extra(path).get(ACCURACY)
    records = {task["id"]: task for task in state["tasks"]}
    tasks = tuple(records)
    return RunSummary(
        manifest.model.class_name,
        manifest.library,
        manifest.torch,
        spec,
        tasks,
        None if state["running"] is None else state["running"]["id"],
        {layer["name"]: layer["units"] for layer in state["layers"]},
        {task: _on_cpu(record["masks"]) for task, record in records.items()},
        {task: _on_cpu(record["importance"]) for task, record in records.items()},
        _on_cpu(state["summed_importance"]),
        *_after(tasks, found),
        found.plan,
        found.verified,
        accuracy_matrix(accuracy, len(tasks)),
    )


def _metadata(value: Any, path: str | os.PathLike[str]) -> RunMetadata:
    try:
        return from_json(value)
    except ValidationError as error:
        raise _damaged(path, str(error.errors(include_url=False, include_input=False)[0]["msg"])) from None


def _damaged(path: str | os.PathLike[str], what: str) -> DamagedCheckpointError:
    return DamagedCheckpointError(
        f"Expected a run as `session.save` writes it in {os.fspath(path)!r}, but something in it is not: {what}. Take "
        "another copy of the folder."
    )


def _after(
    tasks: tuple[TaskId, ...], found: RunMetadata
) -> tuple[dict[TaskId, float | None], dict[TaskId, dict[str, float]]]:
    known = dict(zip(tasks, found.after, strict=False))
    capacity = {task: known[task].capacity if task in known else None for task in tasks}
    return capacity, {task: known[task].rates if task in known else {} for task in tasks}


def _on_cpu(values: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.detach().cpu() for name, value in values.items()}


def accuracy_matrix(accuracy: Any, tasks: int) -> Tensor | None:
    """Return accuracies as a matrix; rows that stop early are filled up with NaN.

    Raises:
        BadCallError: They are something else.
    """
    if accuracy is None:
        return None
    given = accuracy.compute() if hasattr(accuracy, "compute") else accuracy
    rows = given.tolist() if hasattr(given, "tolist") else given
    try:
        filled = [[float("nan") if a is None else float(a) for a in row] for row in rows]
        matrix = torch.tensor([row + [float("nan")] * (tasks - len(row)) for row in filled], dtype=torch.float64)
    except (TypeError, ValueError, RuntimeError):
        matrix = torch.zeros(0)
    matrix = matrix.reshape(0, 0) if tasks == 0 and matrix.numel() == 0 else matrix
    if tuple(matrix.shape) != (tasks, tasks):
        what = f"{len(rows)} rows" if isinstance(rows, list) else f"{accuracy!r:.60}"
        raise BadCallError(
            f"Expected accuracies as a matrix of {tasks} x {tasks}, one row for each finished task, but got {what}. "
            "Row i has the accuracy on each task after learning task i, None where it was not measured."
        )
    if bool((matrix < 0).any()) or bool((matrix > 1).any()):
        raise BadCallError(
            f"Expected accuracies between 0 and 1, but got {float(matrix[~matrix.isnan()].max())!r} among them. Divide "
            "percents by 100."
        )
    return matrix
