"""One task over one fit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor
from torch.optim import LBFGS, Optimizer

import fgadahat_hooks as fh
from fgadahat_hooks.adapters.lightning.checks import (
    check_finders,
    check_measures,
    check_mode,
    check_options,
    check_world,
    holders,
    prefix_of,
)
from fgadahat_hooks.adapters.lightning.evaluation import EvaluationTasks
from fgadahat_hooks.adapters.lightning.figures import Figures
from fgadahat_hooks.adapters.lightning.gate_groups import GateGroups
from fgadahat_hooks.adapters.lightning.loss import add_to_gradients, add_to_loss
from fgadahat_hooks.adapters.lightning.part import PartCallback
from fgadahat_hooks.adapters.lightning.pictures import check_pictures, send
from fgadahat_hooks.errors import BadCallError


class TaskCallback(Callback):
    """Learns one task in a fit, keeps the session in the checkpoint, and evaluates as finished tasks.

    The task begins with the fit, before the sanity check, and ends when training has ended: by `max_epochs`,
    `max_steps`, `max_time` or early stopping. An exception, Ctrl-C or SIGTERM rolls it back, and so does
    `fast_dev_run`; a checkpoint goes on with it. `validate`, `test` and `predict` run as a finished task.

    Args:
        session: The session; attached to the LightningModule or to a part of it.
        task: Id of the new task, and of the one to evaluate by default. None if the Trainer only evaluates.
        num_classes: Number of outputs of the task's head; as at attach when left out.
        eval_tasks: The task of each dataloader in `validate`, `test` and `predict`, and in validation during the fit.
        gate_lr: Learning rate of the task embeddings where configure_optimizers has them in one group with weights:
            what it is at that group's initial learning rate; schedulers change both alike. Ten times the group's when
            left out.
        num_batches: Number of batches over which the gates are annealed, over and over; those of an epoch when left
            out. Needed if the train dataloader has no length.
        log: Log figures of the task to the Trainer's loggers, every `log_every_n_steps`.
        plots: Send the plots of the run to TensorBoard when the task has ended; needs the extra `plot`.

    Raises:
        BadCallError: An argument is not what was expected.
    """

    runs_tasks = True

    def __init__(
        self,
        session: fh.Session,
        task: str | int | None = None,
        num_classes: int | None = None,
        *,
        eval_tasks: Sequence[str | int] | None = None,
        gate_lr: float | None = None,
        num_batches: int | None = None,
        log: bool = True,
        plots: bool = False,
    ) -> None:
        """Change nothing yet."""
        check_options(session, eval_tasks, gate_lr, num_batches)
        self.session = session
        self.task = task
        self._num_classes = num_classes
        self._gate_lr = gate_lr
        self._num_batches = num_batches
        self._log = log
        self._plots = plots
        self._evaluation = EvaluationTasks(session, task, eval_tasks)
        self._forget()

    def _forget(self) -> None:
        self._prepared: fh.Task | None = None
        self._running: fh.Task | None = None
        self._groups: list[GateGroups] = []
        self._figures = Figures()
        self._left: _Left | None = None

    # ---------------------------------------------------------------- begin
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Check everything, and give the head its size before the model is wrapped and the optimizer built.

        Raises:
            CapabilityError: The Trainer's strategy splits parameters, its Tuner puts callbacks aside, or a measure
                cannot be computed on this model.
            BadCallError: The session is not one of this LightningModule, the task is not named, or no logger takes
                the plots that are asked for.
            MissingDependencyError: Plots are asked for, and matplotlib is not installed.
            DuplicateNameError: The session has a callback of its own for what one in the Trainer's list does.
        """
        check_world(trainer, pl_module, self.session)
        self._forget()
        if stage != "fit":
            return
        check_finders(trainer)
        if self.task is None:
            raise BadCallError('Expected a task to fit. Pass TaskCallback(session, task="...").')
        if self._plots:
            check_pictures(trainer)
        others = [c for c in trainer.callbacks if isinstance(c, PartCallback)]  # type: ignore[attr-defined]
        self.session.add_callbacks([part.core for part in others if part.session is self.session])
        check_measures(trainer, pl_module, self.session)
        if self.session.interrupted is None and self.task not in self.session.tasks:
            self._prepared = self.session.task(self.task, self._num_classes)
            self._prepared.prepare()

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin the task, or go on with it where a checkpoint left it; protect the optimizers."""
        task = self._prepared
        if self.session.interrupted is not None and self.session.interrupted == self.task:
            task = self.session.task(self.task, resume=True)
        if task is None:
            task = self.session.task(self._named(), self._num_classes)
        task.__enter__()
        self._prepared, self._running = None, task
        schedulers = [config.scheduler for config in trainer.lr_scheduler_configs]
        for optimizer in holders(trainer, self.session):
            groups = GateGroups(optimizer, self.session, self._gate_lr)
            self._groups.append(groups)
            groups.hide_from(schedulers)
            task.protect(optimizer, single_closure=not isinstance(optimizer, LBFGS))

    def _named(self) -> str | int:
        if self.task is None:
            raise BadCallError('Expected a task to fit. Pass TaskCallback(session, task="...").')
        return self.task

    # ---------------------------------------------------------------- a batch
    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Anneal the gates.

        Raises:
            BadCallError: The number of batches of an epoch is not known, or the model is in evaluation mode.
        """
        if self._running is None:
            return
        check_mode(self.session)
        total = trainer.num_training_batches if self._num_batches is None else self._num_batches
        if not isinstance(total, int):
            if total == float("inf"):
                raise BadCallError(
                    "Expected `num_batches` for a train dataloader without a length: the gates are annealed over the "
                    "batches of an epoch. Pass TaskCallback(session, task, num_batches=...) or limit_train_batches."
                )
            total = int(total)
        self._running.begin_batch(batch_idx % total + 1, total, batch)

    def on_before_backward(self, trainer: Trainer, pl_module: LightningModule, loss: Tensor) -> None:
        """Add the sparsity term to the loss."""
        if self._running is not None and pl_module.automatic_optimization:
            add_to_loss(self._running, trainer, loss)

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        """Say that the gradients are complete: accumulated and un-scaled, and not clipped yet."""
        if self._running is None or not self._running.protects(optimizer):
            return
        if not pl_module.automatic_optimization:
            add_to_gradients(self._running, self.session, optimizer)
        self._running.gradients_ready(optimizer)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """End the batch, and log."""
        if self._running is not None:
            self._running.end_batch()
            if self._log:
                self._figures.log(trainer, self.session, self._running)

    # ---------------------------------------------------------------- end
    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """End the task, and send its plots; after `fast_dev_run` forget it."""
        if self._end(keep=not trainer.fast_dev_run) and self._plots:  # type: ignore[attr-defined]
            send(trainer, self.session)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """End a task that a checkpoint had trained to its end; forget one that was never trained."""
        if self._end(keep=self._running is not None and self._running.steps > 0) and self._plots:
            send(trainer, self.session)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Roll the task back; checkpoints that are written after this still hold it."""
        self._evaluation.leave()
        if self._running is not None:
            self._left = _Left.of(self.session, prefix_of(pl_module, self.session))
        self._end(keep=False)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Leave nothing behind."""
        self._evaluation.leave()
        self._end(keep=False)

    def _end(self, keep: bool) -> bool:
        """Leave the task if one is running; return whether one has ended and is kept."""
        task, prepared, groups = self._running, self._prepared, self._groups
        self._running, self._prepared, self._groups = None, None, []
        for group in groups:
            group.close()
        if prepared is not None:
            prepared.drop()
        if task is not None:
            task.__exit__(None, None, None) if keep else task.drop()
        return keep and task is not None

    # ---------------------------------------------------------------- checkpoints
    @property
    def state_key(self) -> str:
        """Tell sessions on models of different classes apart, where one Trainer has several."""
        return self._generate_state_key(model=type(self.session.model).__qualname__)

    def state_dict(self) -> dict[str, Any]:
        """Return the session's state, with the running task in it; nothing before the model is traced."""
        if self._left is not None:
            return {"session": self._left.state}
        return {"session": self.session.state_dict()} if self.session.traced else {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take the session's state back; a fit goes on in the task that the checkpoint is in the middle of."""
        self._prepared = None  # the checkpoint has set the head's size
        self.session.load_state_dict(state_dict["session"])

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Put the values of the interrupted task into a checkpoint that is written after it was rolled back."""
        if self._left is not None:
            checkpoint["state_dict"].update(self._left.values)

    # ---------------------------------------------------------------- evaluation
    def _start(self, loaders: Sequence[int | float]) -> None:
        self._evaluation.start(len(loaders), None if self._running is None else self.task)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Look up the task of each dataloader."""
        self._start(trainer.num_sanity_val_batches if trainer.sanity_checking else trainer.num_val_batches)

    def on_validation_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Be the dataloader's task."""
        self._evaluation.enter(dataloader_idx)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Be what the model was before."""
        self._evaluation.leave()

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Look up the task of each dataloader."""
        self._start(trainer.num_test_batches)

    def on_test_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Be the dataloader's task."""
        self._evaluation.enter(dataloader_idx)

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Be what the model was before."""
        self._evaluation.leave()

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Look up the task of each dataloader."""
        self._start(trainer.num_predict_batches)

    def on_predict_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Be the dataloader's task."""
        self._evaluation.enter(dataloader_idx)

    def on_predict_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Be what the model was before."""
        self._evaluation.leave()


@dataclass(frozen=True)
class _Left:
    """A task as an exception left it: the session's state, and the values that rolling back replaces."""

    state: dict[str, Any]
    values: dict[str, Tensor]

    @classmethod
    def of(cls, session: fh.Session, prefix: str) -> _Left | None:
        if not session.traced:
            return None
        state, model = session.state_dict(), session.model.state_dict()
        names = [*state["running"]["tensors"], *(n for n in model if n.endswith(".hat_gate.embedding"))]
        return cls(state, {f"{prefix}{name}": model[name].clone() for name in names if name in model})
