"""What was written down of finished tasks, to tell later that not one bit of them has changed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor

from fgadahat_hooks.gates.task_state import TaskId
from fgadahat_hooks.tasks.call_arguments import tensors_in


@dataclass(frozen=True, eq=False)
class ReadEntries:
    """Which entries of one gated layer a task reads: the rows of its units, and of these the columns of its inputs.

    They are kept, because the unit graph grows when a forward takes a path that no trace has seen: then more entries
    are protected than were certified.

    Attributes:
        units: The units, bool `(units,)`; a bias has one entry a unit.
        inputs: The inputs, bool `(inputs,)`; None for all.
    """

    units: Tensor
    inputs: Tensor | None


@dataclass(frozen=True, eq=False)
class TaskCertificate:
    """Digests of one finished task.

    Attributes:
        outputs: SHA-256 of each tensor in the model's output on the canary inputs, by place, type and shape.
        tensors: SHA-256 of all that the task reads, by kind and name: the entries of gated weights that it reads, what
            it has for itself, its masks, and what is frozen or shared.
        reads: Which entries of gated weights these are, by layer.
    """

    outputs: Mapping[str, str]
    tensors: Mapping[str, str]
    reads: Mapping[str, ReadEntries]


@dataclass(frozen=True, eq=False)
class Certificate:
    """Digests of finished tasks, with what is needed to compute them again; `print` it.

    Attributes:
        inputs: The canary inputs, as plain data.
        environment: What the bits of outputs depend on beside the model: device, dtype, torch, kernels, threads.
        tasks: One entry for each task that was finished.
    """

    inputs: Any = field(repr=False)
    environment: Mapping[str, str]
    tasks: Mapping[TaskId, TaskCertificate] = field(repr=False)

    @property
    def input_bytes(self) -> int:
        """Bytes of the canary inputs."""
        return sum(tensor.numel() * tensor.element_size() for tensor in tensors_in(self.inputs))

    def __str__(self) -> str:
        """Return it in words."""
        lines = [
            f"{task!r}: digests of {len(c.tensors)} tensors, {len(c.outputs)} outputs" for task, c in self.tasks.items()
        ]
        made = ", ".join(f"{name} {value}" for name, value in self.environment.items())
        kept = f"The canary inputs ({self.input_bytes:,} bytes) are kept with the session."
        return "\n".join(["Certificate of finished tasks", *(f"  {line}" for line in lines), f"Made on: {made}.", kept])

    def without(self, task: TaskId) -> Certificate | None:
        """Return the certificate of the other tasks; None if there are none."""
        rest = {other: found for other, found in self.tasks.items() if other != task}
        return replace(self, tasks=rest) if rest else None

    def to_plain(self) -> dict[str, Any]:
        """Return it as plain data."""
        tasks = [_task_to_plain(task, found) for task, found in self.tasks.items()]
        return {"inputs": self.inputs, "environment": dict(self.environment), "tasks": tasks}


def _task_to_plain(task: TaskId, found: TaskCertificate) -> dict[str, Any]:
    reads = {name: {"units": entries.units, "inputs": entries.inputs} for name, entries in found.reads.items()}
    return {"id": task, "outputs": dict(found.outputs), "tensors": dict(found.tensors), "reads": reads}


def from_plain(found: Mapping[str, Any]) -> Certificate:
    """Return what `to_plain` has written."""
    tasks = {task["id"]: _task_from_plain(task) for task in found["tasks"]}
    return Certificate(found["inputs"], found["environment"], tasks)


def _task_from_plain(task: Mapping[str, Any]) -> TaskCertificate:
    reads = {name: ReadEntries(**entries) for name, entries in task["reads"].items()}
    return TaskCertificate(task["outputs"], task["tensors"], reads)
