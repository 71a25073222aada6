"""Scales each update, or each gradient, by the weight's adjustment rate."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.optim import Optimizer

from fgadahat_hooks.callbacks.base import Callback, optimizer_parameters
from fgadahat_hooks.callbacks.prior_use import UnitPriorUse, UnitVectors, prior_use, unit_prior_use
from fgadahat_hooks.callbacks.protected_parameter import ProtectedParameter
from fgadahat_hooks.callbacks.rates import CONSTANT, RATES, has_unit_rates
from fgadahat_hooks.errors import NonFiniteError
from fgadahat_hooks.gates.context import TaskContext
from fgadahat_hooks.spec.attach_spec import HAT, to_adjustment


class GradientAdjustCallback(Callback):
    """HAT, AdaHAT, FG-AdaHAT and their baselines: protects what earlier tasks use.

    With `apply_to: update` the optimizer makes its own step, and the parameter keeps only the rate's share of it,
    `p = p_old + a (p_new - p_old)`. So a rate means the same under every optimizer, and a rate of 0 keeps the
    parameter bit for bit whatever momentum or weight decay do. With `apply_to: gradient` the gradient is scaled before
    the step, as in the papers.

    In hard HAT every rate is 0 or 1. The entries that finished tasks use are given the values that they had when the
    last task ended, which are stored once: nothing is copied in a step, the host reads nothing, and because entries
    are selected, NaN elsewhere does not reach them. Soft rates need the values before the step, of those parameters
    whose rate can be below 1.

    What a task's rates need of earlier tasks is computed once, at the task's first step; each step only updates the
    sparsity of the mask.

    Args:
        spec: Block `adjustment` of a spec, or a dict; hard HAT by default.
    """

    key: ClassVar[str] = "gradient_adjust"
    priority: ClassVar[int] = 90

    def __init__(self, spec: Any = None) -> None:
        """Choose the equation."""
        self.spec = to_adjustment(HAT() if spec is None else spec)
        self._rate = RATES[self.spec.mode]
        self._reset()

    def _reset(self) -> None:
        self._parameters: list[ProtectedParameter] | None = None
        self._free_shares: list[Tensor] = []
        self._stepping: list[ProtectedParameter] = []
        self._hard_stepping: set[int] = set()  # ids of the parameters in a step of hard HAT
        self._generator: torch.Generator | None = None
        self._generator_state: Tensor | None = None

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
        self._reset()

    def on_task_abort(self, context: TaskContext) -> None:
        """Forget the rates of the task; undo a step that was interrupted (out of memory, Ctrl-C)."""
        self._undo_interrupted_step(context)
        self._reset()

    def _undo_interrupted_step(self, context: TaskContext) -> None:
        """Restore the values before a step whose end, which limits the update, was never reached."""
        self._write_kept(context)
        if self.spec.apply_to == "update":
            with torch.no_grad():
                for parameter in self._stepping:
                    parameter.restore()

    def _write_kept(self, context: TaskContext) -> None:
        """Give the entries that finished tasks use their values, in the parameters of a hard step that has begun."""
        kept = context.state.kept
        if kept is not None and self._hard_stepping:
            with torch.no_grad():
                for name, entries in kept.gated.items():
                    tensor = kept.live(name)
                    if tensor is not None and id(tensor) in self._hard_stepping:
                        entries.write_into(tensor)
        self._hard_stepping = set()

    def on_graph_change(self, context: TaskContext) -> None:
        """Compute the rates anew, also those of a step in progress; what hard HAT keeps is in the task state."""
        if self._parameters is None:
            return
        before = {parameter.name: parameter for parameter in self._parameters}
        stepping = {parameter.name for parameter in self._stepping}
        random_numbers = self._generator_state, self._generator
        with torch.no_grad():
            self._parameters = self._protected_parameters(context)
        self._generator_state, self._generator = random_numbers
        for parameter in self._parameters:
            parameter.resume(before[parameter.name])
        self._stepping = [parameter for parameter in self._parameters if parameter.name in stepping]

    def on_before_optimizer_step(self, context: TaskContext, optimizer: Optimizer) -> None:
        """Scale the gradients, or save the parameters whose update the rates will limit."""
        if context.number == 1 or self.spec.mode == "hat_const_1":
            return
        held = optimizer_parameters(optimizer)
        self._undo_interrupted_step(context)
        if self.hard:
            self._hard_stepping = held
            return
        with torch.no_grad():
            self._stepping = [p for p in self._updated_parameters(context) if p.limited and id(p.tensor) in held]
            for parameter in self._stepping:
                if self.spec.apply_to == "gradient":
                    parameter.scale_gradient(self._rate_of(parameter))
                else:
                    parameter.save()

    def on_after_optimizer_step(self, context: TaskContext, optimizer: Optimizer) -> None:
        """Keep only the rate's share of each parameter's update."""
        self._write_kept(context)
        if self.spec.apply_to == "gradient" or not self._stepping:
            return
        with torch.no_grad():
            self._refuse_non_finite()
            for parameter in self._stepping:
                parameter.scale_update(self._rate_of(parameter))
        self._stepping = []

    # ---------------------------------------------------------------- a restart in the middle of a task
    def state_dict(self) -> dict[str, Any]:
        """Return the state of the running task's random generator, if there is one."""
        state = self._generator_state if self._generator is None else self._generator.get_state()
        return {} if state is None else {"generator": state}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Keep the generator's state, so that the resumed task draws the numbers that would have come next."""
        self._generator_state = state["generator"].cpu()

    # ---------------------------------------------------------------- rates
    def rates(self, context: TaskContext) -> dict[str, Tensor]:
        """Return the current rate of every weight and bias, by parameter name, each expanded to its shape."""
        with torch.no_grad():
            parameters = self._updated_parameters(context)
            return {p.name: self._rate_of(p).expand(p.tensor.shape) for p in parameters}

    def _updated_parameters(self, context: TaskContext) -> list[ProtectedParameter]:
        """Return the protected parameters, created once a task, with this step's sparsity `R_l`."""
        if self._parameters is None:
            self._parameters = self._protected_parameters(context)
        if self.spec.mode not in CONSTANT:
            sparsity = self._sparsity(context)
            for parameter in self._parameters:
                parameter.sparsity = sparsity[parameter.layer]
        return self._parameters

    def _sparsity(self, context: TaskContext) -> dict[str, Tensor]:
        """Return `R_l` of each layer, a scalar."""
        masks = context.soft_masks().split([layer.info.units for layer in context.layers.values()])
        return {
            name: torch.dot(mask.to(share), share)
            for name, mask, share in zip(context.layers, masks, self._free_shares, strict=True)
        }

    def _protected_parameters(self, context: TaskContext) -> list[ProtectedParameter]:
        summed = context.state.summed_importance
        importance = context.graph.join(summed).to(context.cumulative) if summed else context.cumulative * 0
        self._seed_generator(context)
        self._free_shares = _free_shares(context)
        aggregation = getattr(self.spec, "aggregation", "min")
        vectors = UnitVectors(context.cumulative, context.summative, importance, aggregation)
        prior_use_of = unit_prior_use if has_unit_rates(self.spec) else prior_use
        found = [
            ProtectedParameter(name, local_name, layer.module.get_parameter(local_name), prior)
            for name, layer in context.layers.items()
            for local_name, prior in prior_use_of(context, layer, vectors).items()
        ]
        if self.spec.mode != "hat_random":  # which draws numbers for every parameter, used or not
            for parameter in found:
                parameter.limited = parameter.prior_use.any_use
        return found

    def _seed_generator(self, context: TaskContext) -> None:
        """Create the generator of a mode that draws random numbers; a loaded state replaces its seed."""
        seed = getattr(self.spec, "seed", None)
        if seed is None:
            return
        self._generator = torch.Generator(context.device).manual_seed(seed + context.number)
        state = self._generator_state
        if state is not None and state.shape == self._generator.get_state().shape:
            self._generator.set_state(state)  # a state saved on another kind of device has another size

    def _rate_of(self, parameter: ProtectedParameter) -> Tensor:
        if parameter.constant_rate is not None:
            return parameter.constant_rate
        prior = parameter.prior_use
        rate = self._rate(self.spec, prior, parameter.sparsity, self._generator).to(parameter.tensor.dtype)
        if isinstance(prior, UnitPriorUse):
            return prior.to_weight(rate)
        if self.spec.mode in CONSTANT:
            parameter.constant_rate = rate
            prior.drop_masks()
        return rate

    def _refuse_non_finite(self) -> None:
        """Restore all parameters if the step made one NaN or infinite: `0 * inf` would reach protected weights.

        Raises:
            NonFiniteError: Names the parameters.
        """
        # A sum is not finite if a term is not, and reads the memory once, faster than any test of each element.
        device = self._stepping[0].tensor.device
        sums = torch.stack([parameter.tensor.sum().to(device) for parameter in self._stepping])
        if bool(torch.isfinite(sums).all()):
            return
        for parameter in self._stepping:
            parameter.restore()
        bad = [p.name for p, finite in zip(self._stepping, torch.isfinite(sums).tolist(), strict=True) if not finite]
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
