"""Layer outputs of a forward, kept so that gradients can be taken by them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from fgadahat_hooks.hooks import HookSet

EditOutput = Callable[[str, int, Tensor], Tensor]
"""Takes a layer's name, the index of this call of it (from 0) and its output; returns what replaces the output."""


@dataclass(frozen=True, eq=False)
class Site:
    """Where one layer's units are seen.

    Attributes:
        name: Dotted name of the layer.
        units: Number of its units.
        module: The module whose output, or whose first output, shows them.
        axis: Axis of the output that counts units, negative.
        raw: True to see the output before the gate acts on it, False after.
    """

    name: str
    units: int
    module: nn.Module
    axis: int
    raw: bool = False


class LayerOutputs:
    """Keeps the outputs at all sites, call by call; later layers get a copy, which they may overwrite.

    Attributes:
        values: For each layer the outputs of its calls.
        edit: If set, replaces the outputs, and none are kept.
    """

    def __init__(self, sites: Mapping[str, Site], hooks: HookSet) -> None:
        """Install one forward hook a site; `hooks` removes them."""
        self.values: dict[str, list[Tensor]] = {name: [] for name in sites}
        self.edit: EditOutput | None = None
        self._calls: Counter[str] = Counter()
        for site in sites.values():
            self._install(site, hooks)

    def _install(self, site: Site, hooks: HookSet) -> None:
        def keep_output(_: nn.Module, __: Any, output: Any) -> Any:
            first = output[0] if isinstance(output, tuple) else output
            passed_on = self._keep(site, first)
            return (passed_on, *output[1:]) if isinstance(output, tuple) else passed_on

        hooks.forward(site.module, keep_output, first=site.raw)

    def _keep(self, site: Site, value: Tensor) -> Tensor:
        if self.edit is not None:
            self._calls[site.name] += 1
            return self.edit(site.name, self._calls[site.name] - 1, value)
        if torch.is_grad_enabled() and not value.requires_grad:
            value = value.detach().requires_grad_()
        self.values[site.name].append(value)
        return value.clone()

    def pop(self) -> dict[str, list[Tensor]]:
        """Return what was kept, and reset for the next forward."""
        self.edit = None
        self._calls.clear()
        values, self.values = self.values, {name: [] for name in self.values}
        return values
