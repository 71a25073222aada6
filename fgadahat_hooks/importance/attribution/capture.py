"""What layers put out in a forward, kept so that gradients can be asked of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from fgadahat_hooks.hooks import HookSet

Edit = Callable[[str, int, Tensor], Tensor]
"""Takes a layer, the number of this call of it, from 0, and what it put out; returns what flows on instead."""


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


class Capture:
    """Keeps the outputs at all sites, call after call; what flows on is a copy, which later layers may overwrite."""

    def __init__(self, sites: Mapping[str, Site], hooks: HookSet) -> None:
        """Install one hook a site, taken back by `hooks`."""
        self.values: dict[str, list[Tensor]] = {name: [] for name in sites}
        self.edit: Edit | None = None
        self._calls: Counter[str] = Counter()
        for site in sites.values():
            self._watch(site, hooks)

    def _watch(self, site: Site, hooks: HookSet) -> None:
        def see(_: nn.Module, __: Any, output: Any) -> Any:
            first = output[0] if isinstance(output, tuple) else output
            passed = self._keep(site, first)
            return (passed, *output[1:]) if isinstance(output, tuple) else passed

        hooks.forward(site.module, see, first=site.raw)

    def _keep(self, site: Site, value: Tensor) -> Tensor:
        if self.edit is not None:
            self._calls[site.name] += 1
            return self.edit(site.name, self._calls[site.name] - 1, value)
        if torch.is_grad_enabled() and not value.requires_grad:
            value = value.detach().requires_grad_()
        self.values[site.name].append(value)
        return value.clone()

    def take(self) -> dict[str, list[Tensor]]:
        """Return what was kept and start anew."""
        self.edit = None
        self._calls.clear()
        taken, self.values = self.values, {name: [] for name in self.values}
        return taken
