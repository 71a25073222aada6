"""What is checked of an optimizer when a task protects it, and before it steps."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from torch import nn
from torch.optim import Optimizer

from fgadahat_hooks.callbacks.base import CallbackList, optimizer_parameters
from fgadahat_hooks.distributed.ranks import check_equal
from fgadahat_hooks.distributed.wrappers import refuse_sharded
from fgadahat_hooks.errors import BadCallError, ForeignOptimizerError, OptimizerError
from fgadahat_hooks.gates.attached_model import AttachedModel
from fgadahat_hooks.gates.gate import Gate

_REMEDY = (
    "Each rank would go its own way. DistributedDataParallel averages only the parameters that were there when it was "
    "built: wrap the model after `attach` and inside the task, for a head with another number of classes is a new "
    "parameter."
)


def check_torch_optimizer(optimizer: object) -> None:
    """Refuse what is no optimizer, or one that runs no step hooks.

    Raises:
        BadCallError: It is one of these.
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


def check_steps_model(optimizer: Optimizer, model: nn.Module) -> None:
    """Refuse an optimizer that steps another model.

    Raises:
        ForeignOptimizerError: It holds none of the model's parameters.
    """
    if optimizer_parameters(optimizer).isdisjoint(id(p) for p in model.parameters()):
        raise ForeignOptimizerError(
            f"{type(optimizer).__name__} holds no parameter of the attached model. Build it from "
            "`session.parameter_groups(lr=...)`, after `attach` and after moving the model to its device."
        )


def check_all_embeddings_held(attached: AttachedModel, optimizers: Iterable[Optimizer]) -> None:
    """Refuse to train gates that no optimizer steps, and models that cannot be protected any more.

    Raises:
        DetachedError: The session was detached, or a gated layer was replaced.
        ForeignOptimizerError: A task embedding, or a unit's gain or bias, is in none of the optimizers.
    """
    attached.check_attached()
    refuse_sharded(attached.model.named_parameters())
    held = {i for optimizer in optimizers for i in optimizer_parameters(optimizer)}
    missing = [name for name, gate in attached.gates.items() if id(gate.embedding) not in held]
    if missing and attached.spec.gates.choose == "learn":
        raise ForeignOptimizerError(
            f"No protected optimizer holds the task embeddings of {len(missing)} layer(s), first '{missing[0]}': "
            "their gates would never learn. Build the optimizer from `session.parameter_groups(lr=...)`."
        )
    fixed = [name for name, gate in attached.gates.items() if any(_is_left_out(p, held) for p in _gains_of(gate))]
    if fixed:
        raise ForeignOptimizerError(
            f"No protected optimizer holds the gains and biases of units of {len(fixed)} layer(s), first '{fixed[0]}': "
            "a task could not adapt what earlier tasks left. Build the optimizer from "
            "`session.parameter_groups(lr=...)`, or set gates.gains: none."
        )


def _gains_of(gate: Gate) -> Iterator[nn.Parameter]:
    """Yield the gains and biases of a gate's units, if it has some."""
    return (p for p in gate.parameters() if p is not gate.embedding)


def _is_left_out(parameter: nn.Parameter, held: set[int]) -> bool:
    return parameter.requires_grad and id(parameter) not in held


def check_closure_allowed(optimizer: Optimizer, callbacks: CallbackList) -> None:
    """Refuse a step that computes its gradients by a closure where a callback needs them before the step.

    Raises:
        OptimizerError: Names the callbacks.
    """
    refusing = [callback.state_key for callback in callbacks.items if not callback.allows_closure]
    if refusing:
        raise OptimizerError(
            f"{type(optimizer).__name__}.step was called with a closure, so gradients do not exist before the "
            f"step, but {', '.join(refusing)} needs them then. Call backward() first and step() without a "
            "closure, or use a mode without importance and adjustment.apply_to: 'update'."
        )


def check_same_gradients(optimizer: Optimizer, model: nn.Module) -> None:
    """Refuse gradients that differ between the processes that train one model.

    Raises:
        RanksDifferError: They do.
    """
    held = optimizer_parameters(optimizer)
    check_equal({n: p.grad for n, p in model.named_parameters() if id(p) in held}, "gradients", _REMEDY)
