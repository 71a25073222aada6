"""What is checked before a Trainer runs."""

from __future__ import annotations

from lightning.pytorch import LightningModule, Trainer
from torch.optim import Optimizer

import fgadahat_hooks as fh
from fgadahat_hooks.errors import BadCallError, CapabilityError, ForeignOptimizerError

_SHARDING = ("FSDP", "DeepSpeed", "ModelParallel", "XLA")


def check_session(session: object) -> None:
    """Refuse what is no session.

    Raises:
        BadCallError: It is something else.
    """
    if not isinstance(session, fh.Session):
        raise BadCallError(
            f"Expected `session` to be what fgadahat_hooks.attach returned, but got {type(session).__name__}."
        )


def check_options(session: object, eval_tasks: object, gate_lr: object, num_batches: object) -> None:
    """Refuse wrong options of a `TaskCallback`, all of them at once.

    Raises:
        BadCallError: Names them.
    """
    check_session(session)
    wrong = []
    if eval_tasks is not None and (not isinstance(eval_tasks, list | tuple) or not eval_tasks):
        wrong.append(f"`eval_tasks` to be a list of task ids, one for each dataloader, but got {eval_tasks!r}")
    if gate_lr is not None and (isinstance(gate_lr, bool) or not isinstance(gate_lr, int | float) or not gate_lr > 0):
        wrong.append(f"`gate_lr` to be a number > 0, but got {gate_lr!r}")
    if num_batches is not None and (
        isinstance(num_batches, bool) or not isinstance(num_batches, int) or num_batches < 1
    ):
        wrong.append(f"`num_batches` to be a whole number of at least 1, but got {num_batches!r}")
    if wrong:
        raise BadCallError(f"Expected {'; '.join(wrong)}.")


def check_world(trainer: Trainer, module: LightningModule, session: fh.Session) -> None:
    """Refuse strategies that split parameters, and models that the session knows nothing of.

    Raises:
        CapabilityError: The strategy splits parameters over devices.
        BadCallError: The session's model is not the LightningModule nor a part of it.
    """
    strategy = type(trainer.strategy).__name__
    if any(name in strategy for name in _SHARDING):
        raise CapabilityError(
            f"Expected a strategy that keeps parameters whole, but got {strategy}: masks and rates need all units of "
            'a layer. Use strategy="auto" or "ddp".'
        )
    if all(part is not session.model for part in module.modules()):
        raise BadCallError(
            f"Expected the session's model ({type(session.model).__name__}) to be the LightningModule or a part of it, "
            f"but {type(module).__name__} does not hold it. Attach to the module that is trained, or to a submodule: "
            "attach(module.net, spec, example_inputs)."
        )


def prefix_of(module: LightningModule, session: fh.Session) -> str:
    """Return what the names of the session's model begin with in the LightningModule's `state_dict`."""
    name = next(name for name, part in module.named_modules() if part is session.model)
    return f"{name}." if name else ""


def holders(trainer: Trainer, session: fh.Session) -> list[Optimizer]:
    """Return the Trainer's optimizers that hold parameters of the session's model.

    Raises:
        ForeignOptimizerError: There is none.
    """
    known = {id(p) for p in session.model.parameters()}
    found = [o for o in trainer.optimizers if not known.isdisjoint(id(p) for g in o.param_groups for p in g["params"])]
    if not found:
        raise ForeignOptimizerError(
            "None of the optimizers of configure_optimizers holds a parameter of the attached model. Build one from "
            "`self.parameters()` after `attach`."
        )
    return found
