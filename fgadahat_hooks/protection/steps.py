"""Exactly once around each real optimizer step: callbacks, frozen parameters, the embeddings' bounds."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from fgadahat_hooks.callbacks.base import CallbackList, optimizer_parameters
from fgadahat_hooks.distributed.ranks import check_equal
from fgadahat_hooks.distributed.wrappers import refuse_sharded
from fgadahat_hooks.errors import BadCallError, ForeignOptimizerError, NotAnnealedError, OptimizerError
from fgadahat_hooks.gates.attached_model import AttachedModel
from fgadahat_hooks.gates.context import TaskContext
from fgadahat_hooks.gates.task_state import TaskState
from fgadahat_hooks.hooks import HookSet
from fgadahat_hooks.protection.frozen_parameters import FrozenParameters
from fgadahat_hooks.protection.nested_steps import NestedSteps, calling_frame
from fgadahat_hooks.protection.optimizer_state import fill_momentum, start_anew
from fgadahat_hooks.protection.single_closure import SingleClosure

_WRAP = (
    "Each rank would go its own way. DistributedDataParallel averages only the parameters that were there when it was "
    "built: wrap the model after `attach` and inside the task, for a head with another number of classes is a new "
    "parameter."
)


class ProtectedSteps:
    """The optimizers of one task and what happens around their steps.

    Attributes:
        fresh: Parameters that this task starts anew: an optimizer kept from an earlier task forgets their state.
        annealed: Whether the gate scale was ever set in the task.
        count: Number of real steps.
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
            context: Gives what callbacks see; called at the first step, when the graph is known for sure.
            retrace_pending: Lets the unit graph hold for every forward that has run.
            hooks: Hooks put here live until the task ends.
        """
        self._attached = attached
        self._callbacks = callbacks
        self._context = context
        self._retrace_pending = retrace_pending
        self._hooks = hooks
        self._optimizers: weakref.WeakSet[Optimizer] = weakref.WeakSet()
        self._ready: weakref.WeakSet[Optimizer] = weakref.WeakSet()
        self._compared: weakref.WeakSet[Optimizer] = weakref.WeakSet()
        self._single: weakref.WeakSet[Optimizer] = weakref.WeakSet()
        self._closure: SingleClosure | None = None
        self._inside: Optimizer | None = None
        self._nested = NestedSteps()
        self._frozen = FrozenParameters(attached.tensors, state)
        self._idle = False
        self._complete = False
        self.fresh: list[Tensor] = []
        self.annealed = False
        self.count = 0

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
        if not isinstance(optimizer, Optimizer):
            raise BadCallError(
                f"Expected a torch.optim.Optimizer, but got {type(optimizer).__name__}. Pass the optimizer itself, "
                "not a scheduler, a scaler or a list; call protect once for each."
            )
        if not hasattr(optimizer, "_optimizer_step_pre_hooks"):
            raise BadCallError(
                f"Expected the optimizer that steps, but got {type(optimizer).__name__}, a wrapper that runs no step "
                "hooks. Pass what it wraps (`.optimizer`), or use the adapter for its trainer."
            )
        if optimizer in self._optimizers:
            return
        self._attached.tensors.renew_in(optimizer)
        refuse_sharded((f"group {n}", p) for n, g in enumerate(optimizer.param_groups) for p in g["params"])
        if optimizer_parameters(optimizer).isdisjoint(id(p) for p in self._attached.model.parameters()):
            raise ForeignOptimizerError(
                f"{type(optimizer).__name__} holds no parameter of the attached model. Build it from "
                "`session.parameter_groups(lr=...)`, after `attach` and after moving the model to its device."
            )
        for parameter in self.fresh:
            if parameter in optimizer.state:
                start_anew(optimizer, parameter)
        fill_momentum(optimizer)
        self._hooks.add(optimizer.register_step_pre_hook(self.before))
        self._hooks.add(optimizer.register_step_post_hook(self.after))
        self._optimizers.add(optimizer)
        if single_closure:
            self._single.add(optimizer)

    # ---------------------------------------------------------------- around a step
    def gradients_ready(self, optimizer: Optimizer) -> None:
        """Let the callbacks see an optimizer's gradients now; see `Task.gradients_ready`."""
        if optimizer not in self._optimizers:
            raise ForeignOptimizerError(
                f"{type(optimizer).__name__} is not protected in this task. Call `task.protect(optimizer)` first."
            )
        if optimizer is self._inside:
            return  # a closure that is called several times: these gradients are not the step's
        if optimizer not in self._compared:
            self._compare_ranks(optimizer)
        if _finite(optimizer):  # else a gradient scaler is going to skip the step; if none does, the step tells
            self._callbacks.call("on_gradients_ready", self._context(), optimizer)
            self._ready.add(optimizer)

    def before(self, optimizer: Optimizer, args: Any, kwargs: Any) -> Any:
        """Step pre-hook; what needs gradients waits for a closure that makes them."""
        if not self._nested.begins(optimizer, calling_frame()):
            return None
        self._retrace_pending()
        closure = kwargs.get("closure", args[1] if len(args) > 1 else None)  # args[0] is the optimizer
        single = closure is not None and optimizer in self._single
        self._closure, self._inside = None, None
        self._check(optimizer, closure is not None and not single)
        self._idle = _overflown(optimizer)
        if self._idle:
            return None
        if single:
            self._closure = SingleClosure(optimizer, closure, partial(self._begin, optimizer, False))
            if "closure" in kwargs:
                return args, {**kwargs, "closure": self._closure}
            return (args[0], self._closure, *args[2:]), kwargs
        self._inside = None if closure is None else optimizer
        self._begin(optimizer, closure is not None)
        return None

    def _begin(self, optimizer: Optimizer, closure: bool) -> None:
        """Do what comes between the gradients and the step."""
        self._attached.check_not_cast(self._context().cumulative)
        if optimizer not in self._compared:
            self._compare_ranks(optimizer)
        if optimizer not in self._ready:
            self._callbacks.call("on_gradients_ready", self._context(), optimizer)
        self._ready.discard(optimizer)
        self._callbacks.call("on_before_optimizer_step", self._context(), optimizer)
        self._frozen.hold(optimizer_parameters(optimizer), closure)

    def after(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        """Step post-hook."""
        if not self._nested.ends(optimizer, calling_frame()):
            return
        self._retrace_pending()  # a closure has run forwards of its own
        closure, self._closure, self._inside = self._closure, None, None
        if self._idle or (closure is not None and not closure.made_a_step()):
            return
        self._frozen.release(optimizer)
        self._callbacks.call("on_after_optimizer_step", self._context(), optimizer)
        held = optimizer_parameters(optimizer)
        bound = self._attached.spec.gates.embedding_clamp
        embeddings: list[Tensor] = [e for g in self._attached.gates.values() if id(e := g.embedding) in held]
        with torch.no_grad():
            if embeddings:
                torch._foreach_clamp_min_(embeddings, -bound)
                torch._foreach_clamp_max_(embeddings, bound)
        self._attached.gate_context.embeddings_moved()
        self.count += 1

    def _check_embeddings(self) -> None:
        """Look once, at the first step: the optimizers' groups rarely change after that."""
        self._attached.check_attached()
        refuse_sharded(self._attached.model.named_parameters())
        held = {i for o in self._optimizers for i in optimizer_parameters(o)}
        missing = [n for n, gate in self._attached.gates.items() if id(gate.embedding) not in held]
        if missing:
            raise ForeignOptimizerError(
                f"No protected optimizer holds the task embeddings of {len(missing)} layer(s), first '{missing[0]}': "
                "their gates would never learn. Build the optimizer from `session.parameter_groups(lr=...)`."
            )
        self._complete = True

    def _compare_ranks(self, optimizer: Optimizer) -> None:
        """Look once, at the optimizer's first step, whether all ranks have the same gradients."""
        held, model = optimizer_parameters(optimizer), self._attached.model
        check_equal({n: p.grad for n, p in model.named_parameters() if id(p) in held}, "gradients", _WRAP)
        self._compared.add(optimizer)

    def _check(self, optimizer: Optimizer, closure: bool) -> None:
        if not self._complete:
            self._check_embeddings()
        if not self.annealed:
            raise NotAnnealedError(
                "The gate scale was never set in this task. Go over `task.batches(loader)` instead of the loader, or "
                "call `task.anneal(batch, num_batches)` before each forward."
            )
        refusing = [c.state_key for c in self._callbacks.items if not c.allows_closure] if closure else []
        if refusing:
            raise OptimizerError(
                f"{type(optimizer).__name__}.step was called with a closure, so gradients do not exist before the "
                f"step, but {', '.join(refusing)} needs them then. Call backward() first and step() without a "
                "closure, or use a mode without importance and adjustment.apply_to: 'update'."
            )


def _overflown(optimizer: Optimizer) -> bool:
    """Return whether a fused optimizer is going to leave this step out: the gradient scaler lets it decide itself."""
    found = getattr(optimizer, "found_inf", None)
    return found is not None and bool(found)


def _finite(optimizer: Optimizer) -> bool:
    """Return whether there are gradients and all of them are finite; a sum is not finite if a term is not."""
    grads = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
    sums = [g.sum(dtype=torch.promote_types(g.dtype, torch.float32)).to(grads[0].device, torch.float64) for g in grads]
    return bool(sums) and bool(torch.isfinite(torch.stack(sums)).all())
