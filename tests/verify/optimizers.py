"""Optimizers that change what they should not, and wrappers that look like optimizers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.optim import SGD, Optimizer


class PastTheCounter(SGD):
    """Decays everything through `.data`, gradient or not, so that torch's version counter does not change."""

    def step(self, closure: Any = None) -> Any:
        super().step(closure)
        for group in self.param_groups:
            for p in group["params"]:
                p.data.mul_(0.9)


class WithoutGradient(SGD):
    """Decays everything in place, gradient or not."""

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        super().step(closure)
        for group in self.param_groups:
            for p in group["params"]:
                p.mul_(0.9)


class Hoarder(SGD):
    """Moves parameters that are in none of its groups: it holds them elsewhere."""

    def __init__(self, groups: list[dict[str, Any]], lr: float = 0.1) -> None:
        self.hidden = [p for p in groups[0]["params"] if p.dim() > 1]
        shown = [p for p in groups[0]["params"] if p.dim() <= 1]
        super().__init__([{"params": shown}, *groups[1:]], lr=lr)

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        super().step(closure)
        for p in self.hidden:
            p.add_(0.01)


class Sharpness(Optimizer):
    """Sharpness-aware minimisation as published: ascends, computes gradients again, steps from the start point."""

    def __init__(self, groups: Any, base: Callable[..., Optimizer] = SGD, rho: float = 0.05, lr: float = 0.1) -> None:
        super().__init__(groups, {"rho": rho, "lr": lr})
        self.base = base(self.param_groups, lr=lr)
        self.param_groups = self.base.param_groups

    @torch.no_grad()
    def step(self, closure: Any) -> Any:  # type: ignore[override]  # as in LBFGS
        ascended: list[tuple[Tensor, Tensor]] = []
        with torch.enable_grad():
            closure()
        for group in self.param_groups:
            for p in (p for p in group["params"] if p.grad is not None):
                ascended.append((p, p.detach().clone()))
                p.add_(p.grad, alpha=0.01)
        with torch.enable_grad():
            closure()
        for p, value in ascended:
            p.copy_(value)
        self.base.step()


class NoHooks(Optimizer):
    """A wrapper that subclasses `Optimizer` but runs no step hooks, as in some trainers."""

    def __init__(self, inner: Optimizer) -> None:
        self.inner = inner
        self.param_groups = inner.param_groups

    def step(self, closure: Any = None) -> Any:
        return self.inner.step(closure)
