"""The state of one attached model that does not depend on its tasks."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from fgadahat_hooks.errors import DetachedError, TaskRunningError
from fgadahat_hooks.gates.context import GatedLayer, TaskContext
from fgadahat_hooks.gates.gate import Gate, GateContext
from fgadahat_hooks.gates.task_state import TaskId, TaskState
from fgadahat_hooks.gates.task_tensors import TaskTensors
from fgadahat_hooks.graph.policy import TensorPolicy
from fgadahat_hooks.graph.unit_graph import InputMap, UnitGraph
from fgadahat_hooks.hooks import HookSet
from fgadahat_hooks.layers import LayerType, layer_type_of
from fgadahat_hooks.spec.attach_spec import AttachSpec


@dataclass(eq=False)
class AttachedModel:
    """One model with its gates.

    Attributes:
        model: The user's model.
        spec: What was asked for.
        gates: Gate of each gated layer.
        gate_context: What the gates share.
        hooks: All that `detach` undoes.
        graph: The unit graph; empty until traced.
        policies: How each tensor is protected; empty until traced.
        tensors: Access to the per-task tensors.
        initial: Per-task tensors of norms and gates, and of heads what nobody draws, as they were when the first task
            ever began (until then, at attach).
        head_modules: The head modules as they were at attach, by name.
        gated_modules: The modules that carry gates or their hooks, by name.
        outputs: Number of outputs at attach of each head that can be given another number.
        tied: `id` of each head parameter that other modules use too.
        row_norms: Norm of the incoming weights of each gated unit, `(units,)` per layer, of the same moment; empty
            unless the spec's block `plasticity` needs them.
        plain_state: Tensors that are plain attributes of the model, as they were at attach.
        begun: Whether a task ever began, even one that was rolled back: it has rescaled and trained the weights.
        example_inputs: Inputs that the model was traced with.
        traced: Whether the unit graph is known.
        detached: Whether `detach` was called.
    """

    model: nn.Module
    spec: AttachSpec
    gates: dict[str, Gate]
    gate_context: GateContext
    hooks: HookSet
    graph: UnitGraph = field(default_factory=lambda: UnitGraph({}, {}))
    policies: list[TensorPolicy] = field(default_factory=list)
    tensors: TaskTensors = field(init=False)
    initial: dict[str, Tensor] = field(default_factory=dict)
    head_modules: dict[str, nn.Module] = field(default_factory=dict)
    gated_modules: dict[str, nn.Module] = field(default_factory=dict)
    outputs: dict[str, int] = field(default_factory=dict)
    tied: set[int] = field(default_factory=set)
    plain_state: dict[str, Tensor] = field(default_factory=dict)
    row_norms: dict[str, Tensor] = field(default_factory=dict)
    begun: bool = False
    example_inputs: Any = None
    traced: bool = False
    detached: bool = False

    def __post_init__(self) -> None:
        """Start without per-task tensors; the trace finds them."""
        self.tensors = TaskTensors(self.model, [])

    # ---------------------------------------------------------------- checks
    def check_attached(self) -> None:
        """Check that the model is still attached and has all its gates.

        Raises:
            DetachedError: The session was detached, or a module with a gate was replaced.
        """
        if self.detached:
            raise DetachedError("The session was detached and its model given back. Call fgadahat_hooks.attach again.")
        gone = [name for name, module in self.gated_modules.items() if _find_module(self.model, name) is not module]
        if gone:
            raise DetachedError(
                f"Layer '{gone[0]}' was replaced after attach ({len(gone)} in all): its gate is gone, and finished "
                "tasks with it. Put the old layer back, or make such changes before attach."
            )

    def check_not_cast(self, cumulative: Tensor) -> None:
        """Check that a task continues in the precision in which it began.

        Args:
            cumulative: The joined cumulative mask that was made when the task began.

        Raises:
            TaskRunningError: The model was cast, or moved to the meta device.
        """
        now = next((gate.embedding for gate in self.gates.values()), cumulative)
        if now.dtype != cumulative.dtype or now.is_meta:
            raise TaskRunningError(
                f"Expected the model in {cumulative.dtype} as when the task began, but it is in {now.dtype} on "
                f"{now.device}. Cast the model before a task begins, and build the optimizer after it."
            )

    # ---------------------------------------------------------------- views
    def frozen_names(self) -> list[str]:
        """Return the names of the parameters that no task after the first may change."""
        return [p.name for p in self.policies if p.protection == "frozen" and p.kind == "parameter"]

    def layers(self) -> dict[str, GatedLayer]:
        """Return the gated layers with all that belongs to them, in the order of the graph."""
        out = {}
        for name, info in self.graph.layers.items():
            module = self.model.get_submodule(name)
            kind = _layer_type(module)
            inputs = self.graph.inputs.get(name) or InputMap.all_live(kind.inputs(module))
            reader = None if info.output_module is None else self.model.get_submodule(info.output_module)
            out[name] = GatedLayer(info, module, kind, self.gates[name], inputs, reader)
        return out

    def readers(self) -> dict[str, tuple[nn.Module, LayerType]]:
        """Return every layer that reads units, by name."""
        modules = {name: self.model.get_submodule(name) for name in self.graph.inputs}
        return {name: (module, _layer_type(module)) for name, module in modules.items()}

    def context(self, task: TaskId, state: TaskState) -> TaskContext:
        """Return what callbacks see of a task that starts now.

        Args:
            task: Id of the task.
            state: The finished tasks.
        """
        layers = self.layers()
        first = next(iter(layers.values()), None)
        like = torch.zeros(0) if first is None else first.gate.embedding.detach()
        cumulative = self._join(state.cumulative_mask(self.graph), like)
        summative = self._join(state.summative_mask(self.graph), like)
        number = state.finished + 1
        return TaskContext(
            task, number, self.graph, layers, self.readers(), state, cumulative, summative, HookSet(), self.model
        )

    def _join(self, values: dict[str, Tensor], like: Tensor) -> Tensor:
        return self.graph.join(values).to(like) if values else like


def _find_module(model: nn.Module, name: str) -> nn.Module | None:
    try:
        return model.get_submodule(name)
    except AttributeError:
        return None


def _layer_type(module: nn.Module) -> LayerType:
    kind = layer_type_of(module)
    if kind is None:
        raise DetachedError(f"Expected a layer of a known type as at attach, but found {type(module).__name__}.")
    return kind
