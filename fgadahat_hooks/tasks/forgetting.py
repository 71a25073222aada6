"""Remove a finished task: what only it used is free again, and all other tasks keep their bits."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from fgadahat_hooks.errors import TaskRunningError
from fgadahat_hooks.gates.gate import GateMode
from fgadahat_hooks.gates.task_state import TaskId, TaskState
from fgadahat_hooks.graph.unit_graph import UnitGraph
from fgadahat_hooks.tasks.capacity import capacity_and_rates
from fgadahat_hooks.tasks.sequence import TaskSequence
from fgadahat_hooks.tasks.summed_importance import summed_importance_of


@dataclass(frozen=True)
class LayerUse:
    """How much of one gated layer a task uses.

    Attributes:
        units: Number of units of the layer.
        used: How many of them the task uses.
        alone: How many of these no other finished task uses.
    """

    units: int
    used: int
    alone: int

    @property
    def share(self) -> float:
        """Share of the layer's units that forgetting the task frees."""
        return self.alone / self.units


@dataclass(frozen=True)
class ForgetReport:
    """What forgetting a task frees.

    Attributes:
        task: The task.
        forgotten: Whether it was forgotten; False for a dry run.
        layers: What it uses in each gated layer, by name.
        capacity_before: `session.capacity()` with the task.
        capacity_after: `session.capacity()` without it.
        stored_bytes: Size of what was stored for this task alone: masks, importance, heads, norms.
        remaining: The other finished tasks, in order.
    """

    task: TaskId
    forgotten: bool
    layers: dict[str, LayerUse]
    capacity_before: float
    capacity_after: float
    stored_bytes: int
    remaining: tuple[TaskId, ...]

    @property
    def alone(self) -> int:
        """Number of units that only this task uses."""
        return sum(layer.alone for layer in self.layers.values())

    def __str__(self) -> str:
        """Return it in words, with a row a layer."""
        units = sum(layer.units for layer in self.layers.values())
        verb = "was forgotten, which freed" if self.forgotten else "can be forgotten, which would free"
        share = f" ({self.alone / units:.1%})" if units else ""
        capacity = f"capacity {self.capacity_before:.4f} -> {self.capacity_after:.4f}"
        head = f"Task {self.task!r} {verb} {self.alone:,} of {units:,} units{share}, {self.stored_bytes:,} bytes: "
        width = max(map(len, self.layers), default=0)
        rows = [
            f"  {name:<{width}}  {use.alone:>6} of {use.units} units ({use.share:.1%}), uses {use.used}"
            for name, use in self.layers.items()
        ]
        others = ", ".join(map(repr, self.remaining)) or "none"
        return "\n".join([f"{head}{capacity}.", *rows, f"Other tasks, which keep their bits: {others}."])


def forget(sequence: TaskSequence, task: TaskId, dry_run: bool) -> ForgetReport:
    """Report what forgetting a task frees, and forget it unless it is a dry run; see `Session.forget`.

    Raises:
        UnknownTaskError: No task of that id is finished.
        TaskRunningError: A task is running or interrupted, or a `use` block is open.
        BadCallError: The session has no callback that could sum the importances of the others.
    """
    with sequence.exclusive():
        _check_can_forget(sequence)
        record = sequence.state.record(task)
        sequence.check_kept(f"before task {task!r} was forgotten")
        rest = _without(sequence, task)
        report = ForgetReport(
            task,
            not dry_run,
            _layer_uses(sequence.attached.graph, record.masks, rest),
            capacity_and_rates(sequence, sequence.state)[0],
            capacity_and_rates(sequence, rest)[0],
            _stored_bytes(sequence.state, task),
            tuple(rest.records),
        )
        if not dry_run:
            _replace_state(sequence, rest)
            sequence.certificate = sequence.certificate and sequence.certificate.without(task)
    return report


def _check_can_forget(sequence: TaskSequence) -> None:
    if sequence.running is not None:
        raise TaskRunningError(f"Task {sequence.running.id!r} is running; forget a task after it has ended.")
    if sequence.interrupted is not None:
        raise TaskRunningError(
            f"The loaded state is in the middle of task {sequence.interrupted.id!r}, which reckons with all finished "
            "tasks. End it, or call `session.roll_back()`, before forgetting a task."
        )
    if sequence.attached.gate_context.mode is GateMode.USE:
        raise TaskRunningError("A `session.use` block is open; forget a task outside of it.")


def _without(sequence: TaskSequence, task: TaskId) -> TaskState:
    """Return the finished tasks but one; without any, the next task is a first one again and nothing is frozen."""
    state = sequence.state
    rest = TaskState({t: r for t, r in state.records.items() if t != task})
    rest.summed_importance = summed_importance_of(sequence, rest.records)
    rest.frozen = state.frozen if rest.records else []
    return rest


def _layer_uses(graph: UnitGraph, masks: dict[str, Tensor], rest: TaskState) -> dict[str, LayerUse]:
    others = rest.cumulative_mask(graph)
    return {
        name: LayerUse(layer.units, int(masks[name].sum()), int((masks[name] & ~others[name].to(masks[name])).sum()))
        for name, layer in graph.layers.items()
    }


def _stored_bytes(state: TaskState, task: TaskId) -> int:
    """Count the bytes that only this task holds: tasks share a tensor that did not change from one to the next."""
    shared = {id(tensor) for t, r in state.records.items() if t != task for tensor in r.tensors.values()}
    record = state.records[task]
    own = [t for t in record.tensors.values() if id(t) not in shared]
    own += [*record.masks.values(), *record.importance.values()]
    return sum(t.numel() * t.element_size() for t in own)


def _replace_state(sequence: TaskSequence, rest: TaskState) -> None:
    attached = sequence.attached
    sequence.state = rest
    sequence.keep_weights()
    if not rest.records:
        attached.tensors.enter(attached.initial, copy=True)
    sequence.set_idle_mode()
