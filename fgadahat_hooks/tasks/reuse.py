"""How much of what a task computes comes from units of earlier tasks."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from fgadahat_hooks.gates.attached_model import AttachedModel
from fgadahat_hooks.gates.task_state import TaskState
from fgadahat_hooks.graph.unit_graph import InputMap
from fgadahat_hooks.hooks import HookSet
from fgadahat_hooks.layers import LayerType, weight_of


class ReuseMeter:
    """Measures, for each layer that reads gated units, the share of its signal that comes from earlier tasks' units.

    Input `i` brings `E|a_i| sum_r |W_ri|`, over the rows `r` that this task trains: those of its own new units, or all
    rows of a head. The share is that of the inputs fed by units that an earlier task uses; inputs that no gate reaches
    do not count. This library's own measure; the terms are those of `output_weight_abs_sum_x_activation_abs`.
    """

    def __init__(self, attached: AttachedModel, state: TaskState) -> None:
        """Take the masks that the gates have now, and the units of the tasks finished before."""
        self._attached = attached
        graph = attached.graph
        masks = {name: gate.hard_mask().bool().cpu() for name, gate in attached.gates.items()}
        used = {name: mask.cpu() for name, mask in state.cumulative_mask(graph).items()}
        self._new = {name: masks[name] & ~used[name] for name in masks}
        self._open = graph.join(masks).double() if masks else torch.zeros(0)
        self._used = graph.join(used).double() if masks else torch.zeros(0)
        self._inputs: dict[str, Tensor] = {}

    def watch(self, hooks: HookSet) -> None:
        """Add up the absolute inputs of every layer that reads gated units, until the hooks are closed."""
        for name, (module, kind) in self._attached.readers().items():
            if self._attached.graph.inputs[name].has_predecessor and kind.inputs(module):
                hooks.forward_pre(module, _AddUp(name, kind, self._inputs))

    def shares(self) -> dict[str, float]:
        """Return the share of each layer, 0 to 1; layers that this task trains no row of are left out."""
        readers = self._attached.readers()
        found = {name: self._share(name, *readers[name], total) for name, total in self._inputs.items()}
        return {name: share for name, share in found.items() if share is not None}

    def _share(self, name: str, module: nn.Module, kind: LayerType, total: Tensor) -> float | None:
        inputs = self._attached.graph.inputs[name]
        weight = weight_of(module).detach().abs().double()
        if name in self._new:
            weight = weight * kind.unit_view(module, self._new[name].to(weight))
        signal = (kind.sum_by_input(module, weight) * total).cpu()
        gated, old = self._fed_by(inputs, self._open), self._fed_by(inputs, self._open * self._used)
        whole = float(signal[gated].sum())
        return float(signal[gated & old].sum()) / whole if whole > 0 else None

    def _fed_by(self, inputs: InputMap, units: Tensor) -> Tensor:
        """Return which inputs are fed by one of the units, `(features,)` bool; live inputs are not."""
        return inputs.gather_max(units, 0.0) > 0


class _AddUp:
    """Forward pre-hook of one layer."""

    def __init__(self, name: str, kind: LayerType, totals: dict[str, Tensor]) -> None:
        self._name, self._kind, self._totals = name, kind, totals

    def __call__(self, module: nn.Module, args: tuple[Any, ...]) -> None:
        x = args[0] if args and isinstance(args[0], Tensor) else None
        axis = self._kind.unit_axis
        if x is None or x.dim() < -axis or x.shape[axis] != self._kind.inputs(module):
            return
        others = [d for d in range(x.dim()) if d != x.dim() + axis]
        mean = x.detach().double().abs().mean(others)
        self._totals[self._name] = self._totals.get(self._name, 0) + mean
