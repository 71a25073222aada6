"""The results of `verify`, as data and as text."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from fgadahat_hooks.gates.task_state import TaskId

Tasks = tuple[TaskId, ...]


@dataclass(frozen=True)
class TrainingReport:
    """Result of training two scratch tasks with one optimizer.

    Attributes:
        optimizer: Class name of the optimizer.
        steps: Steps in each of the two tasks.
        moved: Number of elements, embeddings included, that one task's steps changed; the larger of the two tasks'.
        kept: Number of protected elements: of frozen tensors, and of gated ones whose rate is 0.
        overstepped: Number of protected elements that moved, for each tensor in which some did.
        by_choice: For each tensor that the spec allows later tasks to change, the tasks whose logits it changed.
    """

    optimizer: str
    steps: int
    moved: int
    kept: int
    overstepped: dict[str, int]
    by_choice: dict[str, Tasks] = field(default_factory=dict)

    def __str__(self) -> str:
        """Return the report as text."""
        tasks = f"two scratch tasks of {self.steps} steps each with one {self.optimizer}"
        return f"{tasks}, which moved {self.moved:,} elements and none of {self.kept:,} protected ones"


@dataclass(frozen=True)
class VerifyReport:
    """Result of `verify`.

    Attributes:
        tasks: The tasks whose logits were compared.
        free: Number of elements that were overwritten.
        kept: Number of gated elements that were not.
        leaks: For each leaking tensor the tasks whose logits it changed; empty when nothing leaks. A tensor whose
            protected elements were moved leaks even if that changed no logits on these inputs.
        by_choice: Settings of the spec by which finished tasks can still change (soft rates, for one): `Plan.leaks`.
            The proof covers free elements; it does not cover elements that a soft mode moves a little.
        training: Result of the scratch tasks; None without an optimizer.
        policies: How each leaking tensor is protected, and why.
        notes: Tasks that had too little room or may not have learnt, and why: bits are kept, whatever they are worth.
    """

    tasks: Tasks
    free: int
    kept: int
    leaks: dict[str, Tasks]
    by_choice: tuple[str, ...] = ()
    training: TrainingReport | None = None
    policies: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[tuple[TaskId, str], ...] = ()

    def __str__(self) -> str:
        """Return the report as text."""
        return "\n".join(self._leak_lines() if self.leaks else self._proof_lines())

    def _leak_lines(self) -> list[str]:
        when = "" if self.training is None else f" when {self.training.optimizer} learns another task"
        return [f"{len(self.leaks)} tensor(s) leak into finished tasks{when}:", *map(self._leak_line, self.leaks)]

    def _leak_line(self, name: str) -> str:
        tasks = ", ".join(map(repr, self.leaks[name]))
        parts = [f"changes {tasks}"] if tasks else []
        count = 0 if self.training is None else self.training.overstepped.get(name, 0)
        parts += [f"{count:,} protected element(s) moved"] if count else []
        parts += [f"policy {self.policies[name]}"] if name in self.policies else []
        return f"  {name}: {'; '.join(parts)}"

    def _proof_lines(self) -> list[str]:
        tasks = ", ".join(map(repr, self.tasks))
        proof = [f"Tasks {tasks}: logits bit-identical after {self.free:,} free elements were overwritten with noise."]
        proof += [] if self.training is None else self._training_lines(self.training)
        choices = ["But later tasks can still change them, because", *(f"  - {choice}" for choice in self.by_choice)]
        notes = [f"Note on task {task!r}: {note}" for task, note in self.notes]
        return [*proof, *choices, *notes] if self.by_choice else [*proof, *notes]

    def _training_lines(self, training: TrainingReport) -> list[str]:
        changed = tuple(task for task in self.tasks if any(task in tasks for tasks in training.by_choice.values()))
        unchanged = [repr(task) for task in self.tasks if task not in changed]
        lines = [f"Tasks {', '.join(unchanged)}: bit-identical too after {training}."] if unchanged else []
        for task in changed:
            names = [name for name, tasks in training.by_choice.items() if task in tasks]
            lines.append(
                f"Task {task!r}: changed by choice after {training}: {len(names)} tensor(s), first {names[0]}."
            )
        return lines
