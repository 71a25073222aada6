"""Exactly once around each real optimizer step: callbacks, frozen parameters, the embeddings' bounds."""

from __future__ import annotations

import inspect
import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from fgadahat_hooks.callbacks.base import TaskContext, optimizer_parameters
from fgadahat_hooks.errors import BadCallError, ForeignOptimizerError, NotAnnealedError, OptimizerError
from fgadahat_hooks.runtime import Runtime


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
        self._grads: list[tuple[nn.Parameter, Tensor]] = []
        self._versions: list[tuple[str, nn.Parameter, int]] = []
        self._saved: list[tuple[nn.Parameter, Tensor]] = []
        self.annealed = False
        self._complete = False
        self.count = 0

    def __contains__(self, optimizer: object) -> bool:
        """Return whether an optimizer is protected."""
        return optimizer in self._optimizers

    def add(self, optimizer: Optimizer) -> None:
        """Protect an optimizer; a second time does nothing.

        Raises:
            BadCallError: It is no `torch.optim.Optimizer`.
            ForeignOptimizerError: It holds none of the model's parameters.
        """
        if not isinstance(optimizer, Optimizer):
            raise BadCallError(
                f"Expected a torch.optim.Optimizer, but got {type(optimizer).__name__}. Pass the optimizer itself, "
                "not a scheduler, a scaler or a list; call protect once for each."
            )
        if optimizer in self._optimizers:
            return
        self._runtime.tensors.renew_in(optimizer)
        if optimizer_parameters(optimizer).isdisjoint(id(p) for p in self._runtime.model.parameters()):
            raise ForeignOptimizerError(
                f"{type(optimizer).__name__} holds no parameter of the attached model. Build it from "
                "`session.parameter_groups(lr=...)`, after `attach` and after moving the model to its device."
            )
        for parameter in self._fresh:
            if parameter in optimizer.state:
                _start_anew(optimizer, parameter)
        hooks = self._runtime_task_hooks()
        hooks.add(optimizer.register_step_pre_hook(self.before))
        hooks.add(optimizer.register_step_post_hook(self.after))
        self._optimizers.add(optimizer)

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
        self._runtime.callbacks.call("on_gradients_ready", self._context(), optimizer)
        self._ready.add(optimizer)

    def before(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        """Step pre-hook."""
        closure = kwargs.get("closure", args[1] if len(args) > 1 else None)  # args[0] is the optimizer
        self._check(optimizer, closure is not None)
        if optimizer not in self._ready:
            self._runtime.callbacks.call("on_gradients_ready", self._context(), optimizer)
        self._ready.discard(optimizer)
        self._runtime.callbacks.call("on_before_optimizer_step", self._context(), optimizer)
        self._hold_frozen(optimizer_parameters(optimizer), closure is not None)

    def after(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        """Step post-hook."""
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
        held = {i for o in self._optimizers for i in optimizer_parameters(o)}
        missing = [n for n, gate in self._runtime.gates.items() if id(gate.embedding) not in held]
        if missing:
            raise ForeignOptimizerError(
                f"No protected optimizer holds the task embeddings of {len(missing)} layer(s), first '{missing[0]}': "
                "their gates would never learn. Build the optimizer from `session.parameter_groups(lr=...)`."
            )
        self._complete = True

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
