"""Checks before a Trainer runs."""

from __future__ import annotations

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import BatchSizeFinder, LearningRateFinder
from torch.optim import Optimizer

import fgadahat_hooks as fh
from fgadahat_hooks.errors import BadCallError, CapabilityError, ForeignOptimizerError

_SHARDING = ("FSDP", "DeepSpeed", "ModelParallel", "XLA")


def check_session(session: object) -> None:
    """Check that `session` is a session.

    Raises:
        BadCallError: It is something else.
    """
    if not isinstance(session, fh.Session):
        raise BadCallError(
            f"Expected `session` to be what fgadahat_hooks.attach returned, but got {type(session).__name__}."
        )


def check_options(session: object, eval_tasks: object, gate_lr: object, num_batches: object) -> None:
    """Check the options of a `TaskCallback`.

    Raises:
        BadCallError: Options are wrong; lists all of them.
    """
    check_session(session)
    wrong = []
    if eval_tasks is not None and not (isinstance(eval_tasks, list | tuple) and eval_tasks):
        wrong.append(f"`eval_tasks` to be a list of task ids, one for each dataloader, but got {eval_tasks!r}")
    if gate_lr is not None and not _is_positive_number(gate_lr):
        wrong.append(f"`gate_lr` to be a number > 0, but got {gate_lr!r}")
    if num_batches is not None and not (isinstance(num_batches, int) and _is_positive_number(num_batches)):
        wrong.append(f"`num_batches` to be a whole number of at least 1, but got {num_batches!r}")
    if wrong:
        raise BadCallError(f"Expected {'; '.join(wrong)}.")


def _is_positive_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value > 0


def check_trainer(trainer: Trainer, module: LightningModule, session: fh.Session) -> None:
    """Check that the strategy keeps parameters whole, and that the LightningModule holds the session's model.

    Raises:
        CapabilityError: The strategy splits parameters over devices.
        BadCallError: The session's model is neither the LightningModule nor a part of it.
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


def check_attribution_measures(trainer: Trainer, module: LightningModule, session: fh.Session) -> None:
    """Check that no attribution measure reruns a module that DDP calls with the inputs of `training_step`.

    Raises:
        CapabilityError: DDP wraps the LightningModule, the session is attached to all of it, and an attribution
            measure would run it again.
    """
    if "DDP" not in type(trainer.strategy).__name__ or session.model is not module:
        return
    for callback in session.callbacks:
        if isinstance(callback, fh.ImportanceCallback) and not isinstance(callback.measure, fh.Measure):
            raise CapabilityError(
                f"Measure '{callback.spec.type}' runs the attached model again on its own inputs, but under DDP "
                f"Lightning calls {type(module).__name__} with the inputs of `training_step` in place of them. Attach "
                "to the part of it that puts out the logits: attach(module.net, spec, example_inputs)."
            )


def check_tuner_callbacks(trainer: Trainer) -> None:
    """Check for Tuner callbacks, which run training steps with all other callbacks removed.

    Raises:
        CapabilityError: The Trainer's `Tuner` looks for a learning rate or a batch size.
    """
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(callback, BatchSizeFinder | LearningRateFinder):
            raise CapabilityError(
                f"Expected a fit in which callbacks act, but {type(callback).__name__} runs its training steps without "
                "any, so that no task would be running. Let it run on a copy of the module that is not attached: "
                "copy.deepcopy(module) before attach."
            )


def check_training_mode(session: fh.Session) -> None:
    """Check that some part of the model is in training mode.

    Raises:
        BadCallError: All of it is in evaluation mode, where gates are hard and task embeddings do not learn.
    """
    if not any(part.training for part in session.model.modules()):
        raise BadCallError(
            f"Expected the attached {type(session.model).__name__} in training mode, but all of it is in evaluation "
            "mode, where gates are hard and task embeddings learn nothing. Trainer.fit keeps the mode it finds: call "
            "train() on the LightningModule before the fit. Norms that are to stay in eval() may do so."
        )


def state_dict_prefix(module: LightningModule, session: fh.Session) -> str:
    """Return the prefix of the session's model in the LightningModule's `state_dict`."""
    name = next(name for name, part in module.named_modules() if part is session.model)
    return f"{name}." if name else ""


def optimizers_of_model(trainer: Trainer, session: fh.Session) -> list[Optimizer]:
    """Return the Trainer's optimizers that hold parameters of the session's model.

    Raises:
        ForeignOptimizerError: No optimizer does.
    """
    known = {id(p) for p in session.model.parameters()}
    found = [o for o in trainer.optimizers if not known.isdisjoint(id(p) for g in o.param_groups for p in g["params"])]
    if not found:
        raise ForeignOptimizerError(
            "None of the optimizers of configure_optimizers holds a parameter of the attached model. Build one from "
            "`self.parameters()` after `attach`."
        )
    return found
