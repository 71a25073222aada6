"""The callback that runs one task over one fit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor
from torch.optim import LBFGS, Optimizer

import fgadahat_hooks as fh
from fgadahat_hooks.adapters.lightning.averages import copy_model_again, writes_later
from fgadahat_hooks.adapters.lightning.callback_adapter import CallbackAdapter
from fgadahat_hooks.adapters.lightning.checks import (
    check_attribution_measures,
    check_options,
    check_trainer,
    check_training_mode,
    check_tuner_callbacks,
    optimizers_of_model,
    state_dict_prefix,
)
from fgadahat_hooks.adapters.lightning.evaluation import EvaluationTasks
from fgadahat_hooks.adapters.lightning.fit_length import length_of_fit
from fgadahat_hooks.adapters.lightning.gate_groups import GateGroups
from fgadahat_hooks.adapters.lightning.interrupted_state import InterruptedState
from fgadahat_hooks.adapters.lightning.loss import add_to_gradients, add_to_loss
from fgadahat_hooks.adapters.lightning.plot_images import check_plot_logger, log_plots
from fgadahat_hooks.adapters.lightning.scalars import ScalarLogger
from fgadahat_hooks.errors import BadCallError


class TaskCallback(Callback):
    """Learns one task in a fit, saves the session in checkpoints, and evaluates finished tasks.

    The task begins with the fit, before the sanity check, and ends when training has ended: by `max_epochs`,
    `max_steps`, `max_time` or early stopping. An exception, Ctrl-C, SIGTERM or `fast_dev_run` rolls it back; a fit from
    a checkpoint resumes it. `validate`, `test` and `predict` use a finished task.

    Args:
        session: The session, attached to the LightningModule or to a part of it.
        task: Id of the new task, and of the one to evaluate by default. None if the Trainer only evaluates.
        num_classes: Number of outputs of the task's head, or of each head by name; as at attach if None.
        eval_tasks: Task of each dataloader in `validate`, `test` and `predict`, and in validation during the fit.
        gate_lr: Learning rate of task embeddings that configure_optimizers has in one group with weights, at that
            group's initial learning rate; schedulers scale both. Ten times the group's if None.
        num_batches: Number of batches over which the gates are annealed, repeatedly; those of an epoch if None. Needed
            if the train dataloader has no length.
        log: Log scalars of the task to the Trainer's loggers, every `log_every_n_steps`.
        plots: Log the plots of the run to TensorBoard when the task has ended; needs the extra `plot`.

    Raises:
        BadCallError: An argument is not valid.
    """

    runs_tasks = True

    def __init__(
        self,
        session: fh.Session,
        task: str | int | None = None,
        num_classes: int | Mapping[str, int] | None = None,
        *,
        eval_tasks: Sequence[str | int] | None = None,
        gate_lr: float | None = None,
        num_batches: int | None = None,
        log: bool = True,
        plots: bool = False,
    ) -> None:
        """Store the arguments; nothing changes before a Trainer runs."""
        check_options(session, eval_tasks, gate_lr, num_batches)
        self.session = session
        self.task = task
        self._num_classes = num_classes
        self._gate_lr = gate_lr
        self._num_batches = num_batches
        self._log = log
        self._plots = plots
        self._evaluation = EvaluationTasks(session, task, eval_tasks)
        self._reset()

    def _reset(self) -> None:
        self._prepared: fh.Task | None = None
        self._running: fh.Task | None = None
        self._groups: list[GateGroups] = []
        self._scalars = ScalarLogger()
        self._interrupted_state: InterruptedState | None = None

    # ---------------------------------------------------------------- begin
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Check everything, and resize the head before the model is wrapped and the optimizer built.

        Raises:
            CapabilityError: The Trainer's strategy splits parameters, its Tuner removes callbacks, or a measure cannot
                be computed on this model.
            BadCallError: The session is not attached to this LightningModule, `task` is None, or no logger accepts
                the requested plots.
            MissingDependencyError: Plots are requested, and matplotlib is not installed.
            DuplicateNameError: The session already has a callback of the kind of one in the Trainer's list.
        """
        check_trainer(trainer, pl_module, self.session)
        self._reset()
        if stage != "fit":
            return
        check_tuner_callbacks(trainer)
        if self.task is None:
            raise BadCallError('Expected a task to fit. Pass TaskCallback(session, task="...").')
        if self._plots:
            check_plot_logger(trainer)
        adapters = [c for c in trainer.callbacks if isinstance(c, CallbackAdapter)]  # type: ignore[attr-defined]
        self.session.add_callbacks([adapter.core for adapter in adapters if adapter.session is self.session])
        check_attribution_measures(trainer, pl_module, self.session)
        if self.session.interrupted is None and self.task not in self.session.tasks:
            self._prepared = self.session.task(self.task, self._num_classes)
            self._prepared.prepare()
            copy_model_again(trainer, pl_module, self)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin the task, or resume it from a checkpoint; protect finished tasks from the optimizers."""
        task = self._prepared
        if self.session.interrupted is not None and self.session.interrupted == self.task:
            task = self.session.task(self.task, resume=True)
        if task is None:
            task = self.session.task(self._required_task(), self._num_classes)
        task.__enter__()
        self._prepared, self._running = None, task
        schedulers = [config.scheduler for config in trainer.lr_scheduler_configs]
        for optimizer in optimizers_of_model(trainer, self.session):
            groups = GateGroups(optimizer, self.session, self._gate_lr)
            self._groups.append(groups)
            groups.hide_from_schedulers(schedulers)
            task.protect(optimizer, single_closure=not isinstance(optimizer, LBFGS))

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Tell the task how long it will be."""
        if self._running is not None:
            self._running.tell_length(**length_of_fit(trainer, self._num_batches is None))

    def _required_task(self) -> str | int:
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
        check_training_mode(self.session)
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
        """Pass on the complete gradients: accumulated and un-scaled, not clipped yet."""
        if self._running is None or not self._running.protects(optimizer):
            return
        if not pl_module.automatic_optimization:
            add_to_gradients(self._running, self.session, optimizer)
        self._running.gradients_ready(optimizer)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """End the batch, and log scalars."""
        if (task := self._running) is not None:
            task.end_batch()
            if self._log:
                self._scalars.log(trainer, self.session, task)

    # ---------------------------------------------------------------- end
    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """End the task, and log its plots; after `fast_dev_run` roll it back.

        If a callback that averages weights stands behind this one, the task ends after it, with the averaged weights.
        """
        if writes_later(trainer, self):
            return
        if self._end(keep=not trainer.fast_dev_run) and self._plots:  # type: ignore[attr-defined]
            log_plots(trainer, self.session)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """End a task whose weights were averaged last, or that was fully trained in a checkpoint.

        One that was never trained is rolled back.
        """
        trained = self._running is not None and self._running.steps > 0
        if self._end(keep=trained and not trainer.fast_dev_run) and self._plots:  # type: ignore[attr-defined]
            log_plots(trainer, self.session)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Roll the task back; checkpoints written after this still hold it."""
        self._evaluation.leave()
        if self._running is not None:
            self._interrupted_state = InterruptedState.of(self.session, state_dict_prefix(pl_module, self.session))
        self._end(keep=False)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Leave the evaluation, and roll back a task that is still running."""
        self._evaluation.leave()
        self._end(keep=False)

    def _end(self, keep: bool) -> bool:
        """Leave a running task, finished if `keep` or else rolled back; return whether one was finished."""
        task, prepared = self._running, self._prepared
        for group in self._groups:
            group.close()
        self._running, self._prepared, self._groups = None, None, []
        if prepared is not None:
            prepared.drop()
        if task is not None:
            task.__exit__(None, None, None) if keep else task.drop()
        return keep and task is not None

    # ---------------------------------------------------------------- checkpoints
    @property
    def state_key(self) -> str:
        """Key that differs for sessions on models of different classes in one Trainer."""
        return self._generate_state_key(model=type(self.session.model).__qualname__)

    def state_dict(self) -> dict[str, Any]:
        """Return the session's state with the running task; empty before the model is traced."""
        if self._interrupted_state is not None:
            return {"session": self._interrupted_state.state}
        return {"session": self.session.state_dict()} if self.session.traced else {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load the session's state; a fit resumes the task that was running in the checkpoint."""
        self._prepared = None  # loading the checkpoint sets the head's size
        self.session.load_state_dict(state_dict["session"])

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Add the interrupted task's values to a checkpoint that is written after the rollback."""
        if self._interrupted_state is not None:
            checkpoint["state_dict"].update(self._interrupted_state.values)

    # ---------------------------------------------------------------- evaluation
    def _start_evaluation(self, loaders: Sequence[int | float]) -> None:
        self._evaluation.start(len(loaders), None if self._running is None else self.task)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Look up the task of each dataloader."""
        self._start_evaluation(trainer.num_sanity_val_batches if trainer.sanity_checking else trainer.num_val_batches)

    def on_validation_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Switch to the dataloader's task."""
        self._evaluation.enter(dataloader_idx)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Restore the model's state before the evaluation."""
        self._evaluation.leave()

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Look up the task of each dataloader."""
        self._start_evaluation(trainer.num_test_batches)

    def on_test_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Switch to the dataloader's task."""
        self._evaluation.enter(dataloader_idx)

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Restore the model's state before the evaluation."""
        self._evaluation.leave()

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Look up the task of each dataloader."""
        self._start_evaluation(trainer.num_predict_batches)

    def on_predict_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Switch to the dataloader's task."""
        self._evaluation.enter(dataloader_idx)

    def on_predict_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Restore the model's state before the evaluation."""
        self._evaluation.leave()
