"""Norms whose channels several layers made, and which of those channels can be gated again behind them.

A norm takes a channel that a gate made zero to its bias. Where all channels of a BatchNorm are one layer's units, the
gate moves behind it. Elsewhere the gates stay where they are, and the norm's output is gated again: channel by channel,
by the units that can make the channel non-zero. That serves dense concatenation, the identity branch of RepVGG, sums
before a pre-activation block; and LayerNorm and GroupNorm, whose statistics mix channels, so that a gate may stand
behind them only if there is one in front too.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from fgadahat_hooks.graph.tracing.geometry import along
from fgadahat_hooks.graph.tracing.labels import LIVE, ZERO, LabelTable


class Regates:
    """What such norms read, and an atom for each channel they put out."""

    def __init__(self, table: LabelTable, atoms: Mapping[str, range]) -> None:
        """Take for each norm that may be gated again the numbers of its channels' atoms, which have labels already."""
        self._table = table
        self._atoms = atoms
        self._read: dict[str, tuple[int, ...]] = {}
        self.refused: set[str] = set()

    def see(self, norm: str, labels: Tensor, axis: int) -> Tensor | None:
        """Note the labels that a norm reads, channels along `axis`; return those of its output, None if all are live.

        A norm that runs twice, on other channels, has no mask of its own: then its channels turn out live.
        """
        axes = [d for d in range(labels.dim()) if d != axis % labels.dim()]
        line = self._table.over(labels, axes).flatten()
        channels = tuple(line.tolist())
        if self._read.setdefault(norm, channels) != channels or len(self._atoms.get(norm, ())) != len(channels):
            self.refuse(norm)
        if norm in self.refused or all(label in (ZERO, LIVE) for label in channels):
            return None
        first = self._table.single(self._atoms[norm].start)
        mine = torch.arange(first, first + len(channels), dtype=torch.int32, device="cpu")
        return along(torch.where(line > LIVE, mine, LIVE), labels, axis)

    def refuse(self, norm: str) -> None:
        """Let the channels of a norm be live: it runs in a way that no one mask could follow."""
        self.refused.add(norm)

    def found(self) -> Iterator[tuple[str, tuple[int, ...], range]]:
        """Give each norm, in order of execution, with the label that each channel reads and its output's atom."""
        for norm, labels in self._read.items():
            if norm not in self.refused and any(label not in (ZERO, LIVE) for label in labels):
                yield norm, labels, self._atoms[norm]


def norm_channels(model: nn.Module) -> dict[str, int]:
    """Return the modules that may be norms with a weight for each channel, and their numbers of channels."""
    found = {}
    for name, module in model.named_modules():
        weight = None if isinstance(module, torch.jit.ScriptModule) else module._parameters.get("weight")
        if weight is not None and not is_lazy(weight) and weight.dim() == 1:
            found[name] = weight.numel()
    return found
