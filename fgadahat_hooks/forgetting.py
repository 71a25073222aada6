"""Take a finished task back out: what only it used is free again, and no other task notices."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from fgadahat_hooks.errors import TaskRunningError
from fgadahat_hooks.gate import GateMode
from fgadahat_hooks.history import capacity_and_rates, summed_anew
from fgadahat_hooks.runtime import Runtime
from fgadahat_hooks.state import TaskId, TaskState


@dataclass(frozen=True)
class LayerUse:
    """Units of one gated layer.

    Attributes:
        units: How many there are.
        used: How many of them the task uses.
        alone: How many of those no other finished task uses.
    """

    units: int
    used: int
    alone: int

    @property
    def share(self) -> float:
        """Share of the layer's units that are free once the task is forgotten and were not before."""
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
        """Say it in words, with a row a layer."""
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


def forget(runtime: Runtime, task: TaskId, dry_run: bool) -> ForgetReport:
    """Report what forgetting a task frees, and forget it unless it is a dry run; see `Session.forget`.

    Raises:
        UnknownTaskError: No task of that id is finished.
        TaskRunningError: A task is running or interrupted, or a `use` block is open.
        BadCallError: Nothing is there that could sum the importances of the others anew.
    """
    with runtime.alone():
        _check(runtime)
        record = runtime.record(task)
        rest = TaskState({t: r for t, r in runtime.state.records.items() if t != task})
        rest.summed_importance = summed_anew(runtime, rest.records)
        report = ForgetReport(
            task,
            not dry_run,
            _layers(runtime, record.masks, rest),
            capacity_and_rates(runtime, runtime.state)[0],
            capacity_and_rates(runtime, rest)[0],
            _stored_bytes(runtime, task),
            tuple(rest.records),
        )
        if not dry_run:
            _take_out(runtime, rest)
    return report


def _check(runtime: Runtime) -> None:
    if runtime.task is not None:
        raise TaskRunningError(f"Task {runtime.task.id!r} is running; forget a task after it has ended.")
    if runtime.interrupted is not None:
        raise TaskRunningError(
            f"The loaded state is in the middle of task {runtime.interrupted.id!r}, which reckons with all finished "
            "tasks. End it, or call `session.roll_back()`, before forgetting a task."
        )
    if runtime.gate_context.mode is GateMode.USE:
        raise TaskRunningError("A `session.use` block is open; forget a task outside of it.")


def _layers(runtime: Runtime, masks: dict[str, Tensor], rest: TaskState) -> dict[str, LayerUse]:
    others = rest.cumulative_mask(runtime.graph)
    return {
        name: LayerUse(layer.units, int(masks[name].sum()), int((masks[name] & ~others[name].to(masks[name])).sum()))
        for name, layer in runtime.graph.layers.items()
    }


def _stored_bytes(runtime: Runtime, task: TaskId) -> int:
    """Count what only this task holds: tasks share a tensor that did not change from one to the next."""
    held = {t: {*map(id, r.tensors.values())} for t, r in runtime.state.records.items() if t != task}
    shared = set().union(*held.values())
    record = runtime.state.records[task]
    own = [t for t in record.tensors.values() if id(t) not in shared]
    own += [*record.masks.values(), *record.importance.values()]
    return sum(t.numel() * t.element_size() for t in own)


def _take_out(runtime: Runtime, rest: TaskState) -> None:
    runtime.state = rest
    runtime.verified = None  # another task may take the id
    if not rest.records:  # the next task is a first one again
        runtime.frozen = []
        runtime.tensors.put(runtime.initial, copy=True)
    runtime.gate_context.mode = runtime.rest_mode()
