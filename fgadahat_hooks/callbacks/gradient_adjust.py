"""Scales each update, or each gradient, by the weight's adjustment rate."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from fgadahat_hooks.callbacks.base import Callback, TaskContext, optimizer_parameters
from fgadahat_hooks.callbacks.rates import CONSTANT, RATES, Shared, shared_values
from fgadahat_hooks.errors import NonFiniteError
from fgadahat_hooks.spec import HAT, to_adjustment


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
        self._shared: dict[str, dict[str, Shared]] | None = None
        self._constant: dict[str, Tensor] = {}
        self._old: dict[str, Tensor] = {}
        self._generator: torch.Generator | None = None
        self._sparsity: list[Tensor] = []

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
        """Forget the rates of the task."""
        self._forget()

    def on_before_optimizer_step(self, context: TaskContext, optimizer: Optimizer) -> None:
        """Scale the gradients, or remember the parameters."""
        if context.number == 1 or self.spec.mode == "hat_const_1":
            return
        held = optimizer_parameters(optimizer)
        with torch.no_grad():
            self._sparsity = self._layer_sparsities(context)
            for key, parameter, shared, sparsity in self._parameters(context, held):
                if self.spec.apply_to == "gradient":
                    if parameter.grad is not None:
                        parameter.grad.mul_(self._rate_of(key, shared, sparsity))
                elif key in self._old:
                    self._old[key].copy_(parameter)
                else:
                    self._old[key] = parameter.detach().clone()

    def on_after_optimizer_step(self, context: TaskContext, optimizer: Optimizer) -> None:
        """Let each parameter go only its rate's share of the step."""
        if not self._old:
            return
        held = optimizer_parameters(optimizer)
        with torch.no_grad():
            moved = list(self._parameters(context, held))
            self._refuse_non_finite([(key, p) for key, p, _, _ in moved])
            for key, parameter, shared, sparsity in moved:
                rate = self._rate_of(key, shared, sparsity)
                parameter.copy_(torch.lerp(self._old[key], parameter, rate.to(parameter.dtype)))

    # ---------------------------------------------------------------- rates
    def rates(self, context: TaskContext) -> dict[str, Tensor]:
        """Return the rate of every weight and bias at this moment, by parameter name, each broadcast to its shape."""
        with torch.no_grad():
            self._sparsity = self._layer_sparsities(context)
            return {
                key: self._rate_of(key, shared, sparsity).expand(parameter.shape)
                for key, parameter, shared, sparsity in self._parameters(context, None)
            }

    def _layer_sparsities(self, context: TaskContext) -> list[Tensor]:
        """Return `R_l` of each layer, in one pass over all units (AdaHAT Eq. 9, FG-AdaHAT Eq. 3)."""
        free = 1 - context.cumulative
        taken = context.soft_masks().to(free) * free
        sizes = [layer.info.units for layer in context.layers.values()]
        pairs = zip(taken.split(sizes), free.split(sizes), strict=True)
        return [torch.where((whole := f.sum()) > 0, t.sum() / whole.clamp(min=1), 0) for t, f in pairs]

    def _parameters(
        self, context: TaskContext, held: set[int] | None
    ) -> Iterator[tuple[str, nn.Parameter, Shared, Tensor]]:
        """Go over the weights and biases that an optimizer holds, with their layer's sparsity."""
        if self._shared is None:
            self._shared = self._prepare(context)
        for layer, sparsity in zip(context.layers.values(), self._sparsity, strict=True):
            for part, shared in self._shared[layer.info.name].items():
                parameter = layer.module._parameters[part]
                if parameter is not None and (held is None or id(parameter) in held):
                    yield f"{layer.info.name}.{part}", parameter, shared, sparsity

    def _prepare(self, context: TaskContext) -> dict[str, dict[str, Shared]]:
        summed = context.state.summed_importance
        importance = context.graph.join(summed).to(context.cumulative) if summed else context.cumulative * 0
        aggregation = getattr(self.spec, "aggregation", "min")
        seed = getattr(self.spec, "seed", None)
        if seed is not None:
            self._generator = torch.Generator(context.device).manual_seed(seed + context.number)
        return {name: shared_values(context, layer, importance, aggregation) for name, layer in context.layers.items()}

    def _rate_of(self, key: str, shared: Shared, sparsity: Tensor) -> Tensor:
        if key in self._constant:
            return self._constant[key]
        rate = self._rate(self.spec, shared, sparsity, self._generator)
        if self.spec.mode in CONSTANT:
            self._constant[key] = rate
        return rate

    def _refuse_non_finite(self, moved: list[tuple[str, nn.Parameter]]) -> None:
        """Put everything back if the step made a parameter NaN or infinite: `0 * inf` would reach protected weights.

        Raises:
            NonFiniteError: Names the parameters.
        """
        sizes = torch._foreach_norm([p for _, p in moved], float("inf"))
        finite = torch.isfinite(torch.stack([s.float() for s in sizes]))
        if bool(finite.all()):
            return
        for key, parameter in moved:
            parameter.copy_(self._old[key])
        bad = [key for (key, _), ok in zip(moved, finite.tolist(), strict=True) if not ok]
        raise NonFiniteError(
            f"The optimizer's step made {len(bad)} parameter(s) NaN or infinite, first '{bad[0]}'. All gated weights "
            "are as before the step. Lower the learning rate, clip gradients, or skip batches with a bad loss."
        )
