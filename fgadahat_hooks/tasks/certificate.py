"""What was written down of finished tasks, to tell later that not one bit of them has changed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from fgadahat_hooks.gates.task_state import TaskId


@dataclass(frozen=True)
class TaskCertificate:
    """Digests of one finished task.

    Attributes:
        outputs: SHA-256 of each tensor in the model's output on the canary inputs, by place, type and shape.
        tensors: SHA-256 of all that the task reads, by kind and name: the entries of gated weights that it reads, what
            it has for itself, its masks, and what is frozen.
    """

    outputs: Mapping[str, str]
    tensors: Mapping[str, str]


@dataclass(frozen=True)
class Certificate:
    """Digests of finished tasks, with what is needed to compute them again.

    Attributes:
        inputs: The canary inputs.
        environment: What the bits of outputs depend on beside the model: device, torch, threads.
        tasks: One entry for each task that was finished.
    """

    inputs: Any
    environment: Mapping[str, str]
    tasks: Mapping[TaskId, TaskCertificate]

    def without(self, task: TaskId) -> Certificate | None:
        """Return the certificate of the other tasks; None if there are none."""
        rest = {other: found for other, found in self.tasks.items() if other != task}
        return replace(self, tasks=rest) if rest else None

    def to_plain(self) -> dict[str, Any]:
        """Return it as plain data."""
        tasks = [{"id": t, "outputs": dict(c.outputs), "tensors": dict(c.tensors)} for t, c in self.tasks.items()]
        return {"inputs": self.inputs, "environment": dict(self.environment), "tasks": tasks}


def from_plain(found: Mapping[str, Any]) -> Certificate:
    """Return what `to_plain` has written."""
    tasks = {task["id"]: TaskCertificate(task["outputs"], task["tensors"]) for task in found["tasks"]}
    return Certificate(found["inputs"], found["environment"], tasks)
