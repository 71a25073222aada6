"""Norms over the channels of several layers, and which of these channels are gated again behind them.

A norm maps a channel that a gate made zero to its bias. If all channels of a BatchNorm are the units of one layer, the
gate moves behind it. In other cases the gates stay where they are, and the norm's output is gated again (*regated*):
channel by channel, by the units that can make the channel non-zero. This serves dense concatenation, the identity
branch of RepVGG, and sums before a pre-activation block. It also serves LayerNorm and GroupNorm: their statistics mix
channels, so a gate behind them needs one in front too.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from fgadahat_hooks.graph.tracing.labels import LIVE, ZERO, LabelTable
from fgadahat_hooks.graph.tracing.storage import expand_along


class RegatedNorms:
    """The labels that such norms read, and an atom for each channel of their outputs.

    Attributes:
        refused: Names of the norms that cannot be gated again.
    """

    def __init__(self, table: LabelTable, atoms: Mapping[str, range]) -> None:
        """Start with no norm seen.

        Args:
            table: Combines labels; the atoms are among those that have labels from the start.
            atoms: For each norm that may be gated again, the atoms of its channels.
        """
        self._table = table
        self._atoms = atoms
        self._inputs: dict[str, tuple[int, ...]] = {}
        self.refused: set[str] = set()

    def record(self, norm: str, labels: Tensor, axis: int) -> Tensor | None:
        """Record the labels that a norm reads, channels along `axis`; return those of its output, None if all are live.

        A norm that runs twice, on other channels, cannot have one mask: its channels become live.
        """
        others = [d for d in range(labels.dim()) if d != axis % labels.dim()]
        by_channel = self._table.join_over(labels, others).flatten()
        channels = tuple(by_channel.tolist())
        if self._inputs.setdefault(norm, channels) != channels or len(self._atoms.get(norm, ())) != len(channels):
            self.refuse(norm)
        if norm in self.refused or all(label in (ZERO, LIVE) for label in channels):
            return None
        first = self._table.single(self._atoms[norm].start)
        own = torch.arange(first, first + len(channels), dtype=torch.int32, device="cpu")
        return expand_along(torch.where(by_channel > LIVE, own, LIVE), labels, axis)

    def refuse(self, norm: str) -> None:
        """Make the channels of a norm live: no single mask fits the way it runs."""
        self.refused.add(norm)

    def accepted(self) -> Iterator[tuple[str, tuple[int, ...], range]]:
        """Yield each norm, in order of execution, with the label that each channel reads and its output's atoms."""
        for norm, labels in self._inputs.items():
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
