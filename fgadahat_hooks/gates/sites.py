"""The sites where a mask can act: a layer's output, the norm after it, weight rows, a norm over several layers.

Hooks are module-level functions and all their data are attributes of the modules, so that `copy.deepcopy`, `pickle`
and `.to()` of an attached model work, and a copy has its own gates.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from fgadahat_hooks.functional.mask import apply_linearised_mask
from fgadahat_hooks.gates.gate import Gate, GateContext, GateMode, broadcast_along, selects, shut
from fgadahat_hooks.graph.unit_graph import GATE, InputMap
from fgadahat_hooks.hooks import HookSet
from fgadahat_hooks.layers import layer_type_of

_SITE = "_hat_site"


class MaskSource(Protocol):
    """What gives a site its mask: one gate, or several."""

    context: GateContext

    def mask(self) -> Tensor | None:
        """Return the mask that currently applies; None if gates are open."""


class JointGate:
    """One mask over channels that come from several gated layers."""

    def __init__(self, gates: Sequence[Gate], channels: InputMap) -> None:
        """Keep the gates whose units the channels are made of.

        Args:
            gates: All gates of the model, in the order of the graph.
            channels: The units of each channel.
        """
        sizes = [gate.embedding.numel() for gate in gates]
        ends = torch.tensor(sizes, device="cpu").cumsum(0)
        used = torch.bucketize(channels.unit.unique(), ends, right=True).unique()
        self.gates = [gates[int(i)] for i in used]
        self.context = self.gates[0].context
        position = torch.zeros(sum(sizes), dtype=torch.bool, device="cpu")
        for i in used.tolist():
            position[int(ends[i]) - sizes[i] : int(ends[i])] = True
        unit = (position.cumsum(0) - 1)[channels.unit]
        self.channels = InputMap(channels.features, channels.live, channels.feature, unit, channels.group)
        self._index = None if channels.group is not None else _mask_positions(self.channels, int(position.sum()))

    def mask(self) -> Tensor | None:
        """Return the mask `(channels,)`: 1 for a live channel, else the largest mask of its units.

        Raises:
            NoTaskError: Tasks have been learnt and this thread has chosen none.
        """
        joined = self._joined()
        if joined is None:
            return None
        if self._index is None:
            return self.channels.gather_max(joined, 1.0)
        if self._index.device != joined.device:
            self._index = self._index.to(joined.device)
        found = torch.cat([joined, joined.new_ones(1)])[self._index]
        return found[:, 0] if found.shape[1] == 1 else found.amax(1)

    def _joined(self) -> Tensor | None:
        """Return the masks of all gates, concatenated; in training they are computed together in a few operations."""
        soft = self.context.mode is GateMode.TASK and all(gate.training for gate in self.gates)
        if soft and not torch.compiler.is_compiling():
            values, slopes = zip(*(self.context.linearised_mask(gate) for gate in self.gates), strict=True)
            return apply_linearised_mask(
                torch.cat([gate.embedding for gate in self.gates]), torch.cat(values), torch.cat(slopes)
            )
        masks = [mask for gate in self.gates if (mask := gate.mask()) is not None]
        return torch.cat(masks) if masks else None


def _mask_positions(channels: InputMap, one: int) -> Tensor:
    """Return the positions of each channel's units in the joined masks, `(channels, most units of any channel)`.

    Channels with fewer units repeat theirs. All positions of a live channel are `one`, the position after the masks.
    """
    counts = channels.feature.bincount(minlength=channels.features)
    first = counts.cumsum(0) - counts
    steps = torch.arange(max(int(counts.max()), 1), device="cpu")
    order = channels.feature.argsort(stable=True)
    units = torch.cat([channels.unit[order], torch.tensor([one], device="cpu")])
    index = first[:, None] + steps.remainder(counts.clamp(min=1)[:, None])
    return torch.where(channels.live[:, None], one, units[index.clamp(max=len(order))])


# ------------------------------------------------------------------ the gate on the layer's own output
def gate_output(module: nn.Module, _: Any, output: Tensor) -> Tensor:
    """Forward hook of a gated layer."""
    gated: Tensor = module._modules[GATE](output)  # type: ignore[misc]
    return gated


# ------------------------------------------------------------------ gates folded into parameters
class FoldSite:
    """Replaces parameters by gated ones while the forward of one module, the host, runs.

    The replacement is a plain attribute that shadows the parameter of the same name; the parameter stays registered,
    so that optimizers, `state_dict` and gradients see only the original.
    """

    def __init__(self, folds: Sequence[tuple[nn.Module, MaskSource]]) -> None:
        """Take pairs of a gate and a layer, or a norm whose `weight` and `bias` have one value per unit."""
        self.folds = list(folds)
        self._kinds = [layer_type_of(module) for module, _ in self.folds]
        self._hidden: list[tuple[nn.Module, str, Any]] = []
        self._marks: list[int] = []

    def enter(self) -> None:
        """Shadow the parameters with gated ones."""
        masks = [gate.mask() for _, gate in self.folds]  # first, since it may raise, and then nothing must change
        self._marks.append(len(self._hidden))
        for (module, _), kind, mask in zip(self.folds, self._kinds, masks, strict=True):
            for name in ("weight", "bias"):
                parameter = module._parameters.get(name)
                if mask is not None and parameter is not None:
                    rows = mask.to(parameter.dtype)
                    rows = rows if kind is None or name == "bias" else kind.unit_view(module, rows)
                    self.shadow(module, name, parameter * rows)

    def shadow(self, module: nn.Module, name: str, value: Tensor) -> None:
        """Set a plain attribute over a parameter, until `leave`."""
        self._hidden.append((module, name, module.__dict__.get(name)))
        module.__dict__[name] = value

    def leave(self, host: nn.Module, output: Any) -> Any:
        """Restore what was there before the matching `enter`; return what replaces the output, None to keep it."""
        context = self.folds[0][1].context
        if context.mode is GateMode.USE and not context.lock.is_mine():
            return None  # `enter` raised in this thread; the shadowed parameters are another thread's
        mark = self._marks.pop() if self._marks else 0
        while len(self._hidden) > mark:
            module, name, before = self._hidden.pop()
            if before is None:
                module.__dict__.pop(name, None)
            else:
                module.__dict__[name] = before
        return self._shut(host, output) if isinstance(output, Tensor) and selects(context, output) else None

    def _shut(self, host: nn.Module, output: Tensor) -> Tensor | None:
        """Set the closed channels of a BatchNorm to zero: what it got for them may be infinite."""
        if not isinstance(host, nn.modules.batchnorm._BatchNorm):
            return None
        masks = [mask for module, gate in self.folds if module is host and (mask := gate.mask()) is not None]
        return shut(masks[0], output, 1 - output.dim()) if masks else None


def fold_enter(module: nn.Module, _: Any) -> None:
    """Forward pre-hook of the host of a fold site."""
    module.__dict__[_SITE].enter()


def fold_leave(module: nn.Module, _: Any, output: Any) -> Any:
    """Forward hook of the host, also called when its forward raises."""
    return module.__dict__[_SITE].leave(module, output)


class NormSite:
    """The gate of the layer before a norm without affine parameters, which it could be folded into."""

    def __init__(self, gate: MaskSource) -> None:
        """Store the gate."""
        self.gate = gate


def gate_norm(module: nn.Module, _: Any, output: Tensor) -> Tensor:
    """Forward hook of a norm without affine parameters."""
    mask = module.__dict__[_SITE].gate.mask()
    if mask is None:
        return output
    axis, gate = 1 - output.dim(), module.__dict__[_SITE].gate
    output = shut(mask, output, axis) if selects(gate.context, output) else output
    return output * broadcast_along(mask, output, axis)


# ------------------------------------------------------------------ installation
def install_output(hooks: HookSet, layer: nn.Module) -> None:
    """Apply a layer's gate to its own output, before the user's hooks see it."""
    hooks.forward(layer, gate_output, first=True)


def install_norm(hooks: HookSet, norm: nn.Module, gate: MaskSource) -> None:
    """Apply a gate to the output of a norm; through its affine parameters if it has them."""
    if norm._parameters.get("weight") is None:
        hooks.attribute(norm, _SITE, NormSite(gate))
        hooks.forward(norm, gate_norm, first=True)
    else:
        install_fold(hooks, norm, [(norm, gate)])


def site_attribute(hooks: HookSet, host: nn.Module, site: FoldSite) -> None:
    """Keep a fold site on its host, where `fold_enter` and `fold_leave` find it."""
    hooks.attribute(host, _SITE, site)


def install_fold(hooks: HookSet, host: nn.Module, folds: Sequence[tuple[nn.Module, MaskSource]]) -> None:
    """Apply gates to the unit axis of parameters while `host` runs."""
    site_attribute(hooks, host, FoldSite(folds))
    hooks.forward_pre(host, fold_enter)
    hooks.forward(host, fold_leave, always=True, first=True)
