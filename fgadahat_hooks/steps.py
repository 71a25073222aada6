"""Exactly once around each real optimizer step: callbacks, frozen parameters, the embeddings' bounds."""

from __future__ import annotations

import inspect
import weakref
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from fgadahat_hooks.callbacks.base import TaskContext, optimizer_parameters
from fgadahat_hooks.distributed import check_equal
from fgadahat_hooks.errors import BadCallError, ForeignOptimizerError, NotAnnealedError, OptimizerError
from fgadahat_hooks.nested_steps import NestedSteps, calling_frame
from fgadahat_hooks.runtime import Runtime
from fgadahat_hooks.single_closure import SingleClosure
from fgadahat_hooks.wrappers import refuse_sharded

_WRAP = (
    "Each rank would go its own way. DistributedDataParallel averages only the parameters that were there when it was "
    "built: wrap the model after `attach` and inside the task, for a head with another number of classes is a new "
    "parameter."
)


class ProtectedSteps:
    """The optimizers of one task and what happens around their steps."""

    def __init__(self, runtime: Runtime, context: Callable[[], TaskContext], fresh: list[Tensor]) -> None:
        """Protect nothing yet.

        Args:
            runtime: The attached model.
            context: Gives what callbacks see; called at the first step, when the graph is known for sure.
            fresh: Parameters that this task starts anew: an optimizer kept from an earlier task forgets their state.
        """
        self._runtime = runtime
        self._context = context
        self._fresh = fresh
        self._optimizers: weakref.WeakSet[Optimizer] = weakref.WeakSet()
        self._ready: weakref.WeakSet[Optimizer] = weakref.WeakSet()
        self._compared: weakref.WeakSet[Optimizer] = weakref.WeakSet()
        self._grads: list[tuple[nn.Parameter, Tensor]] = []
        self._versions: list[tuple[str, nn.Parameter, int]] = []
        self._saved: list[tuple[nn.Parameter, Tensor]] = []
        self._single: weakref.WeakSet[Optimizer] = weakref.WeakSet()
        self._closure: SingleClosure | None = None
        self._inside: Optimizer | None = None
        self._nested = NestedSteps()
        self._idle = False
        self.annealed = False
        self._complete = False
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
        self._runtime.tensors.renew_in(optimizer)
        refuse_sharded((f"group {n}", p) for n, g in enumerate(optimizer.param_groups) for p in g["params"])
        if optimizer_parameters(optimizer).isdisjoint(id(p) for p in self._runtime.model.parameters()):
            raise ForeignOptimizerError(
                f"{type(optimizer).__name__} holds no parameter of the attached model. Build it from "
                "`session.parameter_groups(lr=...)`, after `attach` and after moving the model to its device."
            )
        for parameter in self._fresh:
            if parameter in optimizer.state:
                _start_anew(optimizer, parameter)
        _fill_momentum(optimizer)
        hooks = self._runtime_task_hooks()
        hooks.add(optimizer.register_step_pre_hook(self.before))
        hooks.add(optimizer.register_step_post_hook(self.after))
        self._optimizers.add(optimizer)
        if single_closure:
            self._single.add(optimizer)

    def _runtime_task_hooks(self) -> Any:
        task = self._runtime.task
        if task is None:
            raise OptimizerError("The task has ended; its optimizers can no longer be protected.")
        return task.hooks

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
            self._runtime.callbacks.call("on_gradients_ready", self._context(), optimizer)
            self._ready.add(optimizer)

    def before(self, optimizer: Optimizer, args: Any, kwargs: Any) -> Any:
        """Step pre-hook; what needs gradients waits for a closure that makes them."""
        if not self._nested.begins(optimizer, calling_frame()):
            return None
        self._runtime.settle()
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
        self._runtime.check_not_cast(self._context().cumulative)
        if optimizer not in self._compared:
            self._compare_ranks(optimizer)
        if optimizer not in self._ready:
            self._runtime.callbacks.call("on_gradients_ready", self._context(), optimizer)
        self._ready.discard(optimizer)
        self._runtime.callbacks.call("on_before_optimizer_step", self._context(), optimizer)
        self._hold_frozen(optimizer_parameters(optimizer), closure)

    def after(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        """Step post-hook."""
        if not self._nested.ends(optimizer, calling_frame()):
            return
        self._runtime.settle()  # a closure has run forwards of its own
        closure, self._closure, self._inside = self._closure, None, None
        if self._idle or (closure is not None and not closure.made_a_step()):
            return
        self._release_frozen(optimizer)
        self._runtime.callbacks.call("on_after_optimizer_step", self._context(), optimizer)
        held = optimizer_parameters(optimizer)
        bound = self._runtime.spec.gates.embedding_clamp
        embeddings: list[Tensor] = [e for g in self._runtime.gates.values() if id(e := g.embedding) in held]
        with torch.no_grad():
            if embeddings:
                torch._foreach_clamp_min_(embeddings, -bound)
                torch._foreach_clamp_max_(embeddings, bound)
        self._runtime.gate_context.embeddings_moved()
        self.count += 1

    def _check_embeddings(self) -> None:
        """Look once, at the first step: the optimizers' groups rarely change after that."""
        self._runtime.check_attached()
        refuse_sharded(self._runtime.model.named_parameters())
        held = {i for o in self._optimizers for i in optimizer_parameters(o)}
        missing = [n for n, gate in self._runtime.gates.items() if id(gate.embedding) not in held]
        if missing:
            raise ForeignOptimizerError(
                f"No protected optimizer holds the task embeddings of {len(missing)} layer(s), first '{missing[0]}': "
                "their gates would never learn. Build the optimizer from `session.parameter_groups(lr=...)`."
            )
        self._complete = True

    def _compare_ranks(self, optimizer: Optimizer) -> None:
        """Look once, at the optimizer's first step, whether all ranks have the same gradients."""
        held, model = optimizer_parameters(optimizer), self._runtime.model
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
        refusing = [c.state_key for c in self._runtime.callbacks.items if not c.allows_closure] if closure else []
        if refusing:
            raise OptimizerError(
                f"{type(optimizer).__name__}.step was called with a closure, so gradients do not exist before the "
                f"step, but {', '.join(refusing)} needs them then. Call backward() first and step() without a "
                "closure, or use a mode without importance and adjustment.apply_to: 'update'."
            )

    # ---------------------------------------------------------------- frozen parameters
    def _hold_frozen(self, held: set[int], closure: bool) -> None:
        """Hide the gradients of frozen parameters: every optimizer leaves a parameter without gradient alone."""
        self._grads, self._versions, self._saved = [], [], []
        for name in self._runtime.frozen:
            parameter = self._runtime.tensors.tensor(name)
            if id(parameter) not in held or not isinstance(parameter, nn.Parameter):
                continue
            if closure:
                self._saved.append((parameter, parameter.detach().clone()))
                continue
            self._versions.append((name, parameter, parameter._version))
            if parameter.grad is not None:
                self._grads.append((parameter, parameter.grad))
                parameter.grad = None

    def _release_frozen(self, optimizer: Optimizer) -> None:
        with torch.no_grad():
            for parameter, value in self._saved:
                parameter.copy_(value)
        for parameter, grad in self._grads:
            parameter.grad = grad
        moved = [name for name, parameter, version in self._versions if parameter._version != version]
        self._grads, self._saved = [], []
        if moved:
            raise OptimizerError(
                f"{type(optimizer).__name__} changed the frozen parameter '{moved[0]}' although it had no gradient. "
                "Finished tasks may be changed. Leave frozen parameters out of this optimizer: build it from "
                "`session.parameter_groups(lr=...)` inside the task."
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


def _start_anew(optimizer: Optimizer, parameter: Tensor) -> None:
    """Give a parameter the state that a new optimizer would have for it.

    Most optimizers make their state at a parameter's first step, some (Adagrad) when they are built; one that cannot be
    built from its own defaults keeps what it has.
    """
    known = inspect.signature(type(optimizer)).parameters
    options = {name: value for name, value in optimizer.defaults.items() if name in known}
    try:
        fresh = type(optimizer)([parameter], **options)
    except (TypeError, ValueError):
        return
    if parameter in fresh.state:
        optimizer.state[parameter] = fresh.state[parameter]
    else:
        optimizer.state.pop(parameter)


def _fill_momentum(optimizer: Optimizer) -> None:
    """Give fused SGD its zero momenta: it takes those of all parameters or of none."""
    for group in optimizer.param_groups:
        held = [optimizer.state.get(p, {}) for p in group["params"]] if group.get("fused") else []
        if any(state.get("momentum_buffer") is not None for state in held):
            for p in group["params"]:
                if optimizer.state[p].get("momentum_buffer") is None:
                    optimizer.state[p]["momentum_buffer"] = torch.zeros_like(p)
