"""Begin a task with units of earlier tasks at the scale of fresh ones: gains and biases from its first batch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fgadahat_hooks.distributed.ranks import sum_over_ranks
from fgadahat_hooks.functional.plasticity import calibrated_gain
from fgadahat_hooks.gates.attached_model import AttachedModel
from fgadahat_hooks.gates.gate import Gate, GateMode
from fgadahat_hooks.gates.task_state import TaskState
from fgadahat_hooks.graph.tracing.forward import disable_compilation
from fgadahat_hooks.hooks import HookSet
from fgadahat_hooks.tasks.norm_statistics import buffers_kept
from fgadahat_hooks.tasks.recent_forwards import RecentForwards

ENOUGH = 16
"""Values of a unit (samples times positions) that its mean and standard deviation are taken from, at least."""


@dataclass
class _Sums:
    """Number, sum and sum of squares of a gate's outputs, in double precision, `(1 + 2 units,)`."""

    used: Tensor
    values: Tensor


class GainCalibration:
    """Sets the gains and biases of old units in a running task's first training forwards; see `calibrated_gain`.

    It acts within the forward, layer after layer, so that a layer is measured on what the layers before it give by
    then. With a batch of few values it waits for the next ones. Processes take the sums of all.
    """

    def __init__(self, attached: AttachedModel, state: TaskState) -> None:
        """Find the gates that have gains and units of earlier tasks.

        Args:
            attached: The model.
            state: The finished tasks.
        """
        self._attached = attached
        self._target = attached.spec.plasticity.calibrated_std
        self._waiting: dict[str, _Sums] = {}
        for name, used in state.cumulative_mask(attached.graph).items():
            like = attached.gates[name].embedding.detach()
            if attached.gates[name].gain is not None and bool(used.any()):
                sums = torch.zeros(1 + 2 * like.numel(), dtype=torch.float64, device="cpu")
                self._waiting[name] = _Sums(used.to(like.device), sums)

    @property
    def pending(self) -> bool:
        """Whether some gates have not been calibrated yet."""
        return bool(self._waiting)

    def run_again(self, recent: RecentForwards) -> None:
        """Measure on the last forward of a compiled model, whose gates could not be seen while it ran."""
        model, forward = self._attached.model, recent.forwards[-1]
        with torch.no_grad(), disable_compilation(), buffers_kept(model):
            recent.set_modes(forward)
            recent.run(model, forward)

    def start(self, hooks: HookSet) -> None:
        """Wait for the task's first training forward.

        Args:
            hooks: Hooks of the task.
        """
        for name in self._waiting:
            self._attached.gates[name].calibration = self
        hooks.undo(self._stop)

    def __deepcopy__(self, memo: Any) -> None:
        """Return nothing: a copy of the model has no running task."""

    def __reduce__(self) -> Any:
        """Be None in a pickled model."""
        return (_nothing, ())

    def _stop(self) -> None:
        for gate in self._attached.gates.values():
            gate.calibration = None
        self._waiting = {}

    def see(self, gate: Gate, output: Tensor) -> None:
        """Take in an output of a gate's layer; set its gains and biases once there is enough.

        Args:
            gate: The gate.
            output: The layer's output, units along the gate's axis.
        """
        sums = self._waiting.get(gate.name)
        if sums is None or not gate.training or gate.context.mode is not GateMode.TASK or in_transform():
            return
        with torch.no_grad():
            sums.values += sum_over_ranks(_sums_of(output, gate.unit_axis))
            if sums.values[0] >= ENOUGH:
                self._set(gate, sums)
                del self._waiting[gate.name]
                gate.calibration = None

    def _set(self, gate: Gate, sums: _Sums) -> None:
        count, total, squares = sums.values[0], *sums.values[1:].chunk(2)
        mean = total / count
        std = (squares / count - mean.square()).clamp(min=0).sqrt()
        for parameter, value in zip((gate.gain, gate.bias), calibrated_gain(mean, std, self._target), strict=True):
            if parameter is not None and bool(torch.isfinite(value).all()):
                parameter.copy_(torch.where(sums.used, value.to(parameter), parameter))


def _sums_of(output: Tensor, unit_axis: int) -> Tensor:
    """Return number, sums and sums of squares of each unit's values, `(1 + 2 units,)`, in double precision."""
    values = output.detach().movedim(unit_axis, 0).flatten(1).double()
    count = torch.tensor([values.shape[1]], dtype=torch.float64, device=values.device)
    return torch.cat([count, values.sum(1), values.square().sum(1)]).cpu()


def _nothing() -> None:
    return None


def in_transform() -> bool:
    """Return whether a transform of `torch.func` such as `vmap` runs, under which tensors have no values to read."""
    return torch._C._functorch.peek_interpreter_stack() is not None
