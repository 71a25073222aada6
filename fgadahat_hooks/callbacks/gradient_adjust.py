"""Scales each update, or each gradient, by the weight's adjustment rate."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.optim import Optimizer

from fgadahat_hooks.callbacks.base import Callback, optimizer_parameters
from fgadahat_hooks.callbacks.protected_parameter import ProtectedParameter
from fgadahat_hooks.callbacks.rates import (
    CONSTANT,
    RATES,
    UnitPriorUse,
    UnitVectors,
    is_by_unit,
    prior_use,
    unit_prior_use,
)
from fgadahat_hooks.errors import NonFiniteError
from fgadahat_hooks.gates.context import TaskContext
from fgadahat_hooks.spec.attach_spec import HAT, to_adjustment


class GradientAdjustCallback(Callback):
    """HAT, AdaHAT, FG-AdaHAT and their baselines: protects what earlier tasks use.

    With `apply_to: update` the optimizer makes its own step and the parameter goes only the rate's share of the way,
    `p = p_old + a (p_new - p_old)`. So a rate means the same under every optimizer, and a rate of 0 keeps the
    parameter bit for bit whatever momentum or weight decay do. With `apply_to: gradient` the gradient is scaled before
    the step, as the papers have it.

    What a task's rates need of earlier tasks is computed once, at the task's first step; a step only brings in the
    current sparsity of the mask.

    Args:
        spec: Block `adjustment` of a spec, or a dict; hard HAT by default.
    """

    key: ClassVar[str] = "gradient_adjust"
    priority: ClassVar[int] = 90

    def __init__(self, spec: Any = None) -> None:
        """Choose the equation."""
        self.spec = to_adjustment(HAT() if spec is None else spec)
        self._rate = RATES[self.spec.mode]
        self._forget()

    def _forget(self) -> None:
        self._parts: list[ProtectedParameter] | None = None
        self._free_shares: list[Tensor] = []
        self._moving: list[ProtectedParameter] = []
        self._generator: torch.Generator | None = None
        self._drawn: Tensor | None = None

    @property
    def hard(self) -> bool:
        """Whether a weight that an earlier task uses never moves."""
        return self.spec.mode == "hat" and self.spec.apply_to == "update"

    @property
    def allows_closure(self) -> bool:
        """Only if updates are scaled, not gradients."""
        return self.spec.apply_to == "update"

    # ---------------------------------------------------------------- events
    def on_task_start(self, context: TaskContext) -> None:
        """Forget the rates of the task before."""
        self._forget()

    def on_task_abort(self, context: TaskContext) -> None:
        """Forget the rates of the task; a step that broke off half way (out of memory, Ctrl-C) is taken back."""
        self._take_back()
        self._forget()

    def _take_back(self) -> None:
        """Undo a step that broke off: its second half would have put back what earlier tasks use."""
        if self.spec.apply_to == "update":
            with torch.no_grad():
                for part in self._moving:
                    part.restore()

    def on_graph_change(self, context: TaskContext) -> None:
        """Make the rates anew, also of a step that is being made."""
        if self._parts is None:
            return
        before, moving = {part.name: part for part in self._parts}, {part.name for part in self._moving}
        drawn = self._drawn, self._generator
        with torch.no_grad():
            self._parts = self._prepare(context)
        self._drawn, self._generator = drawn
        for part in self._parts:
            part.resume(before[part.name])
        self._moving = [part for part in self._parts if part.name in moving]

    def on_before_optimizer_step(self, context: TaskContext, optimizer: Optimizer) -> None:
        """Scale the gradients, or remember the parameters."""
        if context.number == 1 or self.spec.mode == "hat_const_1":
            return
        held = optimizer_parameters(optimizer)
        self._take_back()
        with torch.no_grad():
            self._bring_up_to_date(context)
            self._moving = [part for part in self._parts or () if id(part.parameter) in held]
            for part in self._moving:
                if self.spec.apply_to == "gradient":
                    part.scale_gradient(self._rate_of(part))
                else:
                    part.remember()

    def on_after_optimizer_step(self, context: TaskContext, optimizer: Optimizer) -> None:
        """Let each parameter go only its rate's share of the step."""
        if self.spec.apply_to == "gradient" or not self._moving:
            return
        with torch.no_grad():
            self._refuse_non_finite()
            for part in self._moving:
                part.scale_update(self._rate_of(part))
        self._moving = []

    # ---------------------------------------------------------------- a restart in the middle of a task
    def state_dict(self) -> dict[str, Any]:
        """Return how far the random numbers of the running task have come, if there are any."""
        drawn = self._drawn if self._generator is None else self._generator.get_state()
        return {} if drawn is None else {"generator": drawn}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on drawing where the saved task was."""
        self._drawn = state["generator"].cpu()

    # ---------------------------------------------------------------- rates
    def rates(self, context: TaskContext) -> dict[str, Tensor]:
        """Return the rate of every weight and bias at this moment, by parameter name, each broadcast to its shape."""
        with torch.no_grad():
            self._bring_up_to_date(context)
            return {part.name: self._rate_of(part).expand(part.parameter.shape) for part in self._parts or ()}

    def _bring_up_to_date(self, context: TaskContext) -> None:
        """Prepare what stays the same all through the task, once, and bring in this step's sparsity `R_l`."""
        if self._parts is None:
            self._parts = self._prepare(context)
        if self.spec.mode in CONSTANT:
            return
        masks = context.soft_masks().split([layer.info.units for layer in context.layers.values()])
        sparsity = {
            name: torch.dot(mask.to(share), share)
            for name, mask, share in zip(context.layers, masks, self._free_shares, strict=True)
        }
        for part in self._parts:
            part.sparsity = sparsity[part.layer]

    def _prepare(self, context: TaskContext) -> list[ProtectedParameter]:
        summed = context.state.summed_importance
        importance = context.graph.join(summed).to(context.cumulative) if summed else context.cumulative * 0
        seed = getattr(self.spec, "seed", None)
        if seed is not None:
            self._generator = torch.Generator(context.device).manual_seed(seed + context.number)
            if self._drawn is not None and self._drawn.shape == self._generator.get_state().shape:
                self._generator.set_state(self._drawn)  # kinds of devices draw by states of their own
        self._free_shares = _free_shares(context)
        aggregation = getattr(self.spec, "aggregation", "min")
        joined = UnitVectors(context.cumulative, context.summative, importance, aggregation)
        values = unit_prior_use if is_by_unit(self.spec) else prior_use
        return [
            ProtectedParameter(name, local, layer.module.get_parameter(local), shared)
            for name, layer in context.layers.items()
            for local, shared in values(context, layer, joined).items()
        ]

    def _rate_of(self, part: ProtectedParameter) -> Tensor:
        if part.constant is not None:
            return part.constant
        rate = self._rate(self.spec, part.prior_use, part.sparsity, self._generator).to(part.parameter.dtype)
        if isinstance(part.prior_use, UnitPriorUse):
            return part.prior_use.to_weight(rate)
        if self.spec.mode in CONSTANT:
            part.constant = rate
            part.prior_use.__dict__.pop("protected", None)  # a second copy of what the rate says
            part.prior_use.__dict__.pop("count", None)
        return rate

    def _refuse_non_finite(self) -> None:
        """Put everything back if the step made a parameter NaN or infinite: `0 * inf` would reach protected weights.

        Raises:
            NonFiniteError: Names the parameters.
        """
        # A sum is not finite if a term is not, and reads the memory once, faster than any test of each element.
        sums = torch.stack([part.parameter.sum().to(self._moving[0].parameter.device) for part in self._moving])
        if bool(torch.isfinite(sums).all()):
            return
        for part in self._moving:
            part.restore()
        bad = [part.name for part, ok in zip(self._moving, torch.isfinite(sums).tolist(), strict=True) if not ok]
        raise NonFiniteError(
            f"The optimizer's step made {len(bad)} parameter(s) NaN or infinite, first '{bad[0]}'. All gated weights "
            "are as before the step. Lower the learning rate, clip gradients, or skip batches with a bad loss."
        )


def _free_shares(context: TaskContext) -> list[Tensor]:
    """Return `(1 - M) / sum (1 - M)` of each layer, so that `R_l` is its product with the mask; 0 where all is used."""
    sizes = [layer.info.units for layer in context.layers.values()]
    shares = []
    for free in (1 - context.cumulative).split(sizes):
        total = free.sum()
        shares.append(torch.where(total > 0, free / total.clamp(min=1), 0))
    return shares
