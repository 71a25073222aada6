"""The hooks around each real optimizer step: callbacks, frozen parameters, bounds of the embeddings."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from fgadahat_hooks.callbacks.base import CallbackList, optimizer_parameters
from fgadahat_hooks.distributed.wrappers import refuse_sharded
from fgadahat_hooks.errors import ForeignOptimizerError, NotAnnealedError
from fgadahat_hooks.gates.attached_model import AttachedModel
from fgadahat_hooks.gates.context import TaskContext
from fgadahat_hooks.gates.task_state import TaskState
from fgadahat_hooks.hooks import HookSet
from fgadahat_hooks.protection.between_steps import BetweenSteps
from fgadahat_hooks.protection.closure_values import ClosureValues
from fgadahat_hooks.protection.embedding_travel import EmbeddingTravel
from fgadahat_hooks.protection.frozen_parameters import FrozenParameters
from fgadahat_hooks.protection.learning_rates import LearningRates
from fgadahat_hooks.protection.nested_steps import NestedSteps, calling_frame
from fgadahat_hooks.protection.optimizer_checks import (
    check_all_embeddings_held,
    check_closure_allowed,
    check_same_gradients,
    check_steps_model,
    check_torch_optimizer,
)
from fgadahat_hooks.protection.optimizer_state import fill_momentum, reset_state
from fgadahat_hooks.protection.single_closure import SingleClosure


class ProtectedSteps:
    """The optimizers of one task and what happens around their steps.

    Attributes:
        fresh: Parameters that this task starts anew: an optimizer kept from an earlier task loses its state of them.
        annealed: Whether the gate scale was ever set in the task.
        count: Number of real steps.
        between: What is looked at between its steps.
        travel: How far the task embeddings can have moved.
    """

    def __init__(
        self,
        attached: AttachedModel,
        state: TaskState,
        callbacks: CallbackList,
        context: Callable[[], TaskContext],
        retrace_pending: Callable[[], None],
        hooks: HookSet,
    ) -> None:
        """Protect nothing yet.

        Args:
            attached: The model.
            state: Finished tasks.
            callbacks: What acts around each step.
            context: Returns what callbacks see; called when an optimizer steps, because the model is traced by then.
            retrace_pending: Extends the unit graph to every forward that has run.
            hooks: Hooks put here live until the task ends.
        """
        self._attached = attached
        self._callbacks = callbacks
        self._context = context
        self._retrace_pending = retrace_pending
        self._hooks = hooks
        self._optimizers: weakref.WeakSet[Optimizer] = weakref.WeakSet()
        self._single_closure: weakref.WeakSet[Optimizer] = weakref.WeakSet()
        self._compared: weakref.WeakSet[Optimizer] = weakref.WeakSet()  # across ranks
        self._announced: weakref.WeakSet[Optimizer] = weakref.WeakSet()  # on_gradients_ready was called for its step
        self._embeddings_checked = False
        self._frozen = FrozenParameters(attached.tensors, state)
        self.between = BetweenSteps(attached, state, callbacks)
        self._before: ClosureValues | None = None
        self._state = state
        self._rates: LearningRates | None = None
        self._nested = NestedSteps()
        self._closure: SingleClosure | None = None
        self._in_closure: Optimizer | None = None
        self._skipped = False
        self.fresh: list[Tensor] = []
        self._fixed: tuple[list[Tensor], list[Tensor]] | None = None
        self.annealed = False
        self.count = 0
        self.travel = EmbeddingTravel(attached)

    def __contains__(self, optimizer: object) -> bool:
        """Return whether an optimizer is protected."""
        return optimizer in self._optimizers

    def add(self, optimizer: Optimizer, single_closure: bool = False) -> None:
        """Protect an optimizer; a second time does nothing.

        Args:
            optimizer: The optimizer.
            single_closure: Whether its step calls a closure exactly once, before it moves anything.

        Raises:
            BadCallError: It is no `torch.optim.Optimizer`.
            ForeignOptimizerError: It holds none of the model's parameters.
        """
        check_torch_optimizer(optimizer)
        if optimizer in self._optimizers:
            return
        self._attached.tensors.update_optimizer(optimizer)
        refuse_sharded((f"group {n}", p) for n, g in enumerate(optimizer.param_groups) for p in g["params"])
        check_steps_model(optimizer, self._attached.model)
        for parameter in self.fresh:
            if parameter in optimizer.state:
                reset_state(optimizer, parameter)
        fill_momentum(optimizer)
        self.between.add(optimizer)
        self._hooks.add(optimizer.register_step_pre_hook(self.before_step))
        self._hooks.add(optimizer.register_step_post_hook(self.after_step))
        self._optimizers.add(optimizer)
        if single_closure:
            self._single_closure.add(optimizer)

    # ---------------------------------------------------------------- before a step
    def gradients_ready(self, optimizer: Optimizer) -> None:
        """Let the callbacks see an optimizer's gradients now; see `Task.gradients_ready`."""
        if optimizer not in self._optimizers:
            raise ForeignOptimizerError(
                f"{type(optimizer).__name__} is not protected in this task. Call `task.protect(optimizer)` first."
            )
        if optimizer is self._in_closure:
            return  # a closure that is called several times: these gradients are not the step's
        self._compare_ranks(optimizer)
        if _has_finite_gradients(optimizer):  # else a gradient scaler skips the step; without one, the step raises
            self._callbacks.call("on_gradients_ready", self._context(), optimizer)
            self._announced.add(optimizer)

    def before_step(self, optimizer: Optimizer, args: Any, kwargs: Any) -> Any:
        """Step pre-hook; what needs gradients waits for a closure that makes them."""
        if not self._nested.begins(optimizer, calling_frame()):
            return None
        self.between.check("before a step")
        self._retrace_pending()
        closure = kwargs.get("closure", args[1] if len(args) > 1 else None)  # args[0] is the optimizer
        single = closure is not None and optimizer in self._single_closure
        self._closure, self._in_closure = None, None
        self._check_step(optimizer, closure is not None and not single)
        self._skipped = _will_skip(optimizer)
        if self._skipped:
            return None
        if single:
            self._closure = SingleClosure(optimizer, closure, partial(self._prepare_after_closure, optimizer))
            return _with_closure(self._closure, args, kwargs)
        self._in_closure = None if closure is None else optimizer
        self._prepare_update(optimizer, closure is not None)
        if closure is None or self._rates is None:
            return None
        return _with_closure(self._rates.outside(optimizer, closure), args, kwargs)

    def _check_step(self, optimizer: Optimizer, closure: bool) -> None:
        """Refuse a step before anything is changed; `closure` tells whether gradients are made during the step."""
        if not self._embeddings_checked:  # once: the optimizers' groups rarely change after the first step
            check_all_embeddings_held(self._attached, self._optimizers)
            self._embeddings_checked = True
        if not self.annealed:
            raise NotAnnealedError(
                "The gate scale was never set in this task. Go over `task.batches(loader)` instead of the loader, or "
                "call `task.anneal(batch, num_batches)` before each forward."
            )
        if closure:
            check_closure_allowed(optimizer, self._callbacks)

    def _prepare_after_closure(self, optimizer: Optimizer) -> None:
        self._retrace_pending()  # the closure has run a forward
        self._prepare_update(optimizer, False)

    def _prepare_update(self, optimizer: Optimizer, closure: bool) -> None:
        """Do what comes between the gradients and the update; with `closure`, gradients do not exist yet."""
        self._attached.check_not_cast(self._context().cumulative)
        self._compare_ranks(optimizer)
        if optimizer not in self._announced:
            self._callbacks.call("on_gradients_ready", self._context(), optimizer)
        self._announced.discard(optimizer)
        self._callbacks.call("on_before_optimizer_step", self._context(), optimizer)
        self._frozen.hide(optimizer_parameters(optimizer), closure)
        if self._attached.spec.gates.choose == "share":  # L2 decay of all parameters would close units in time
            self.fix_masks()
        self._before = ClosureValues(self._attached, self._state) if closure and self._state.kept else None
        if self._fixed is None:
            self.travel.add(optimizer)
        if self._attached.spec.plasticity.learning_rates == "by_share":
            self._learning_rates().enter(optimizer)
        self.between.in_step = True

    def fix_masks(self) -> None:
        """Fix the running task's masks as they are and make them hard, until the task ends."""
        if self._fixed is None:
            embeddings = [gate.embedding.detach() for gate in self._attached.gates.values()]
            self._fixed = (embeddings, [e.clone() for e in embeddings])
            self._attached.gate_context.set_learning(False)

    def _learning_rates(self) -> LearningRates:
        """Return the learning rates of this task; made at its first step, since the model is traced by then."""
        if self._rates is None:
            self._rates = LearningRates(self._attached, self._state)
            self._hooks.undo(self._rates.close)
        return self._rates

    def _compare_ranks(self, optimizer: Optimizer) -> None:
        """Check once, at the optimizer's first step, that all ranks have the same gradients."""
        if optimizer not in self._compared:
            check_same_gradients(optimizer, self._attached.model)
            self._compared.add(optimizer)

    # ---------------------------------------------------------------- after a step
    def after_step(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        """Step post-hook."""
        if not self._nested.ends(optimizer, calling_frame()):
            return
        self._retrace_pending()  # a closure has run forwards of its own
        if self._before is not None:
            self._before.extend_kept(self._attached, self._state, self._callbacks)
            self._before = None
        closure, self._closure, self._in_closure = self._closure, None, None
        if self._skipped or (closure is not None and not closure.made_a_step()):
            return
        if self._rates is not None:
            self._rates.leave(optimizer)
        self._frozen.restore(optimizer)
        self._callbacks.call("on_after_optimizer_step", self._context(), optimizer)
        self._clamp_embeddings(optimizer_parameters(optimizer))
        self._attached.gate_context.clear_mask_cache()
        self.count += 1
        self.between.step_ended(optimizer, self.count)

    def _clamp_embeddings(self, held: set[int]) -> None:
        """Bring the task embeddings that an optimizer has stepped back within their bounds."""
        bound = self._attached.spec.gates.embedding_clamp
        embeddings: list[Tensor] = [e for g in self._attached.gates.values() if id(e := g.embedding) in held]
        if self._fixed is not None:  # weight decay, or momentum of the learning phase, would move them on
            if embeddings:
                torch._foreach_copy_(*self._fixed)
        elif embeddings:
            with torch.no_grad():
                torch._foreach_clamp_min_(embeddings, -bound)
                torch._foreach_clamp_max_(embeddings, bound)


def _with_closure(closure: Any, args: Any, kwargs: Any) -> tuple[Any, Any]:
    """Return the arguments of a step with another closure."""
    if "closure" in kwargs:
        return args, {**kwargs, "closure": closure}
    return (args[0], closure, *args[2:]), kwargs


def _will_skip(optimizer: Optimizer) -> bool:
    """Return whether a fused optimizer will skip this step: a gradient scaler leaves that decision to it."""
    found = getattr(optimizer, "found_inf", None)
    return found is not None and bool(found)


def _has_finite_gradients(optimizer: Optimizer) -> bool:
    """Return whether there are gradients and all of them are finite; a sum is not finite if a term is not."""
    grads = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
    sums = [g.sum(dtype=torch.promote_types(g.dtype, torch.float32)).to(grads[0].device, torch.float64) for g in grads]
    return bool(sums) and bool(torch.isfinite(torch.stack(sums)).all())
