"""Everything that belongs to one attached model; session, tasks and verification share it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from fgadahat_hooks.callbacks.base import Callback, CallbackList, GatedLayer, TaskContext
from fgadahat_hooks.errors import DetachedError, TaskRunningError, UnknownTaskError
from fgadahat_hooks.gate import Gate, GateContext, GateMode
from fgadahat_hooks.graph import InputMap, UnitGraph
from fgadahat_hooks.hooks import HookSet
from fgadahat_hooks.layers import LayerType, layer_type_of
from fgadahat_hooks.policy import TensorPolicy
from fgadahat_hooks.random_states import EpochDraws
from fgadahat_hooks.registry import suggest
from fgadahat_hooks.spec import AttachSpec
from fgadahat_hooks.state import RunningTask, TaskId, TaskRecord, TaskState
from fgadahat_hooks.task_tensors import TaskTensors
from fgadahat_hooks.turns import works_for_autograd

if TYPE_CHECKING:
    from fgadahat_hooks.branches import BranchWatch
    from fgadahat_hooks.history import AfterTask
    from fgadahat_hooks.task import Task
    from fgadahat_hooks.verify import VerifyReport


@dataclass(eq=False)
class Runtime:
    """One attached model.

    Attributes:
        model: The user's model.
        spec: What was asked for.
        gates: Gate of each gated layer.
        gate_context: What the gates share.
        callbacks: All that act, in the order they are called.
        own_callbacks: Those of them that were given to `attach`.
        hooks: All that `detach` takes back.
        state: Finished tasks.
        graph: The unit graph; empty until traced.
        policies: How each tensor is protected; empty until traced.
        initial: Per-task tensors of norms as they were at attach.
        tensors: Access to the per-task tensors.
        example_inputs: Inputs that the model was traced with.
        task: The running task.
        task_thread: The thread that it was begun in.
        interrupted: A task that a loaded state is in the middle of, until it goes on or is rolled back.
        frozen: Names of the parameters that stay as the first task left them; empty before it ends.
        tied: Identities of head parameters that other modules use too.
        num_classes: Number of outputs of the head at attach, None without one head layer.
        placed: The modules that carry gates or their hooks, by name.
        draws: Random numbers at the beginning of the epoch, to draw it again after an interruption.
        save_id: Which save the session was loaded from, empty if from none.
        branches: What notices forwards that take a way no trace has seen; None until traced.
        history: For each finished task its record and what `history` found of it.
        verified: What the last proof found; None if there was none.
    """

    model: nn.Module
    spec: AttachSpec
    gates: dict[str, Gate]
    gate_context: GateContext
    callbacks: CallbackList
    hooks: HookSet
    state: TaskState = field(default_factory=TaskState)
    graph: UnitGraph = field(default_factory=lambda: UnitGraph({}, {}))
    policies: list[TensorPolicy] = field(default_factory=list)
    initial: dict[str, Tensor] = field(default_factory=dict)
    tensors: TaskTensors = field(init=False)
    own_callbacks: tuple[Callback, ...] = field(init=False)
    example_inputs: Any = None
    traced: bool = False
    task: Task | None = None
    task_thread: int | None = None
    interrupted: RunningTask | None = None
    detached: bool = False
    frozen: list[str] = field(default_factory=list)
    tied: set[int] = field(default_factory=set)
    num_classes: int | None = None
    placed: dict[str, nn.Module] = field(default_factory=dict)
    draws: EpochDraws = field(default_factory=EpochDraws)
    save_id: str = ""
    branches: BranchWatch | None = None
    history: list[tuple[TaskRecord, AfterTask]] = field(default_factory=list)
    verified: VerifyReport | None = None

    def __post_init__(self) -> None:
        """Start without per-task tensors; the trace tells which there are."""
        self.tensors = TaskTensors(self.model, [])
        self.own_callbacks = tuple(self.callbacks.items)

    # ---------------------------------------------------------------- checks
    def check_attached(self) -> None:
        """Refuse to work on a model that was given back, or that lost a gate.

        Raises:
            DetachedError: The session was detached, or a layer that carries a gate was replaced.
        """
        if self.detached:
            raise DetachedError("The session was detached and its model given back. Call fgadahat_hooks.attach again.")
        gone = [name for name, module in self.placed.items() if _module(self.model, name) is not module]
        if gone:
            raise DetachedError(
                f"Layer '{gone[0]}' was replaced after attach ({len(gone)} in all): its gate is gone, and finished "
                "tasks with it. Put the old layer back, or make such changes before attach."
            )

    def check_not_cast(self, cumulative: Tensor) -> None:
        """Refuse to go on with a task in another precision than it was begun in.

        Args:
            cumulative: The joined mask that was made when the task began.

        Raises:
            TaskRunningError: The model was cast, or has lost its values.
        """
        now = next((gate.embedding for gate in self.gates.values()), cumulative)
        if now.dtype != cumulative.dtype or now.is_meta:
            raise TaskRunningError(
                f"Expected the model in {cumulative.dtype} as when the task began, but it is in {now.dtype} on "
                f"{now.device}. Cast the model before a task begins, and build the optimizer after it."
            )

    def record(self, task: TaskId) -> TaskRecord:
        """Return the record of a finished task.

        Raises:
            UnknownTaskError: No task of that id is finished.
        """
        try:
            found = self.state.records.get(task)
        except TypeError:
            found = None
        if found is None:
            known = list(self.state.records)
            hint = suggest(task, [t for t in known if isinstance(t, str)])
            raise UnknownTaskError(
                f"Expected the id of a finished task, but got {task!r}.{hint} "
                + (f"Finished tasks: {', '.join(map(repr, known))}." if known else "No task is finished yet.")
            )
        return found

    def frozen_names(self) -> list[str]:
        """Return the parameters that no task after the first may change."""
        return [p.name for p in self.policies if p.protection == "frozen" and p.kind == "parameter"]

    def settle(self) -> None:
        """Let the graph hold for every forward that has run."""
        if self.branches is not None and self.branches.ways:
            self.branches.settle()

    # ---------------------------------------------------------------- views
    def layers(self) -> dict[str, GatedLayer]:
        """Return the gated layers with all that belongs to them, in the graph's order."""
        out = {}
        for name, info in self.graph.layers.items():
            module = self.model.get_submodule(name)
            kind = _kind(module)
            inputs = self.graph.inputs.get(name) or InputMap.all_live(kind.inputs(module))
            reader = None if info.read is None else self.model.get_submodule(info.read)
            out[name] = GatedLayer(info, module, kind, self.gates[name], inputs, reader)
        return out

    def readers(self) -> dict[str, tuple[nn.Module, LayerType]]:
        """Return every layer that reads units, by name."""
        modules = {name: self.model.get_submodule(name) for name in self.graph.inputs}
        return {name: (module, _kind(module)) for name, module in modules.items()}

    def context(self, task: TaskId) -> TaskContext:
        """Return what callbacks see of a task that starts now."""
        layers = self.layers()
        first = next(iter(layers.values()), None)
        like = torch.zeros(0) if first is None else first.gate.embedding.detach()
        cumulative = self._join(self.state.cumulative_mask(self.graph), like)
        summative = self._join(self.state.summative_mask(self.graph), like)
        number = self.state.finished + 1
        return TaskContext(
            task, number, self.graph, layers, self.readers(), self.state, cumulative, summative, HookSet(), self.model
        )

    def _join(self, values: dict[str, Tensor], like: Tensor) -> Tensor:
        return self.graph.join(values).to(like) if values else like

    # ---------------------------------------------------------------- modes
    @contextmanager
    def alone(self) -> Iterator[None]:
        """Wait for the other threads that use the model, then run the block.

        Raises:
            TaskRunningError: A task is running in another thread.
        """
        with self.gate_context.turns.take():
            if self.task is not None and self.task_thread != threading.get_ident() and not works_for_autograd():
                raise TaskRunningError(
                    f"Task {self.task.id!r} is running in another thread, and the model can be one task at a time. Use "
                    "the model in that thread, or after the task has ended."
                )
            yield

    def start(self, task: Task) -> None:
        """Let a task run in this thread, once no other thread uses the model.

        Raises:
            TaskRunningError: Another thread's task has begun meanwhile.
        """
        with self.alone():
            self.task, self.interrupted, self.task_thread = task, None, threading.get_ident()

    @contextmanager
    def using(self, task: TaskId) -> Iterator[None]:
        """Run the block as a finished task: its masks in the gates, its own tensors in the model."""
        with self.alone():
            record = self.record(task)
            masks = {n: m.to(self.gates[n].embedding) for n, m in record.masks.items()}
            references = self.tensors.references()
            try:
                with self.gate_context.acting(GateMode.USE, masks):
                    self.tensors.put(record.tensors, copy=False)
                    yield
            finally:
                if not self.detached:  # else the model was given back as this task
                    self.tensors.restore(references)

    @contextmanager
    def using_running(self) -> Iterator[None]:
        """Run the block under the hard mask of the running task."""
        with self.alone():
            masks = {name: gate.hard_mask() for name, gate in self.gates.items()}
            with self.gate_context.acting(GateMode.USE, masks):
                yield

    def rest_mode(self) -> GateMode:
        """Return what gates do while no task is chosen."""
        return GateMode.CLOSED if self.state.records or self.interrupted else GateMode.OPEN


def _module(model: nn.Module, name: str) -> nn.Module | None:
    try:
        return model.get_submodule(name)
    except AttributeError:
        return None


def _kind(module: nn.Module) -> LayerType:
    kind = layer_type_of(module)
    if kind is None:
        raise DetachedError(f"Expected a layer of a known type as at attach, but found {type(module).__name__}.")
    return kind
