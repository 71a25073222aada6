"""The Hugging Face Trainer: a `TrainerCallback` that drives the events of a task."""

from __future__ import annotations

import math
from collections.abc import MutableMapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR, has_length

from fgadahat_hooks.errors import BadCallError, NoTaskError

if TYPE_CHECKING:
    from fgadahat_hooks import Session, Task

SESSION_FILE = "fgadahat_session.pt"
"""File that the callback adds to each checkpoint of the Trainer."""


def load_checkpoint(session: Session, folder: str | Path) -> None:
    """Load the state that a `TaskCallback` saved in a checkpoint, before the task is resumed.

    The Trainer loads the rest of the checkpoint itself, if it is given an optimizer made of
    `session.parameter_groups`::

        load_checkpoint(session, folder)
        with session.task("birds", resume=True) as task:
            optimizers = (AdamW(session.parameter_groups(lr=1e-3)), None)
            trainer = Trainer(model, args, optimizers=optimizers, callbacks=[TaskCallback(session, task)])
            trainer.train(resume_from_checkpoint=folder)

    The model is loaded too: the Trainer saves some models under other names than it loads, and then continues with a
    warning and untrained weights.

    Args:
        session: A session on the same model, attached in the same way.
        folder: The checkpoint's folder.

    Raises:
        BadCallError: The folder holds no such checkpoint.
        StateMismatchError: The state is of another model.
    """
    file = Path(folder) / SESSION_FILE
    if not file.is_file():
        raise BadCallError(
            f"Expected a checkpoint written with a TaskCallback, but there is no {SESSION_FILE} in {folder}."
        )
    saved = torch.load(file, map_location="cpu", weights_only=True)
    session.load_state_dict(saved["session"])
    session.model.load_state_dict(saved["model"])


class TaskCallback(TrainerCallback):
    """Learn one task with a `transformers.Trainer`, without changes to the Trainer or the model.

    Use it in a task's block and make the Trainer inside it, so that an exception leaves the task and DDP is built
    around the task's own head::

        with session.task("birds", num_classes=20) as task:
            Trainer(model, args, train_dataset=birds, callbacks=[TaskCallback(session, task)]).train()

    Finished tasks are protected from the Trainer's optimizer; in it the task embeddings get their own parameter group
    without weight decay. The sparsity term is added to the loss that the model returns. Evaluation during training
    uses the task's current hard mask.

    Args:
        session: The session of the bare model.
        task: The running task.
        gate_lr: Learning rate of the task embeddings; ten times `args.learning_rate` if None. Not used if you pass
            the Trainer an optimizer made of `session.parameter_groups`.
    """

    def __init__(self, session: Session, task: Task, gate_lr: float | None = None) -> None:
        """Store the session and the task; the Trainer's events do the rest."""
        self._session = session
        self._task = task
        self._gate_lr = gate_lr
        self._optimizer: Optimizer | None = None
        self._args: TrainingArguments | None = None
        self._max_norm: float | None = None
        self._batches_per_epoch = 1
        self._batch_number = 0
        self._accumulate = 1
        self._batch_share = 1.0
        self._batch_pending = False
        self._term_reached = False

    # ---------------------------------------------------------------- the Trainer's events
    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Protect finished tasks from the optimizer, and hook the model.

        Raises:
            BadCallError: The Trainer would replicate, compile or shard the model, or its scheduler is not supported.
            NoTaskError: The task has ended.
        """
        self._check_arguments(args, kwargs["model"])
        self._set_num_labels(kwargs["model"])
        optimizer, loader = _inner_optimizer(kwargs["optimizer"]), kwargs["train_dataloader"]
        self._move_embeddings_to_own_group(optimizer, kwargs["lr_scheduler"], args)
        self._task.protect(optimizer)
        whole_epochs = args.max_steps <= 0 and float(args.num_train_epochs).is_integer()
        length = {"epochs": int(args.num_train_epochs)} if whole_epochs else {"steps": state.max_steps}
        self._task.tell_length(**length)
        self._accumulate = args.gradient_accumulation_steps
        self._batches_per_epoch = len(loader) if has_length(loader) else args.max_steps * self._accumulate
        if self._args is None:
            self._task.hooks.forward_pre(self._session.model, self._before_forward, kwargs=True)
            self._task.hooks.forward(self._session.model, self._after_forward, kwargs=True)
            self._task.hooks.undo(self._restore_max_grad_norm)
        self._optimizer, self._args = optimizer, args

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Set the batch number, counting the batches of this epoch before a restart."""
        updates = math.ceil(self._batches_per_epoch / self._accumulate)
        self._batch_number = state.global_step % updates * self._accumulate

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Mark the first batch of a step as pending, and move gradient clipping to `on_pre_optimizer_step`."""
        left = self._batches_per_epoch - self._batch_number
        self._batch_share = 1 / max(1, min(self._accumulate, left))
        self._batch_number, self._batch_pending = self._batch_number + 1, True
        if args.max_grad_norm > 0 and self._max_norm is None:
            self._max_norm = args.max_grad_norm
            args.max_grad_norm = math.inf  # the Trainer then un-scales gradients and logs their norm, without clipping

    def on_substep_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """End a batch, and mark the next one of the same step as pending."""
        self._task.end_batch()
        self._batch_number, self._batch_pending = self._batch_number + 1, True

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Pass the gradients to the callbacks, then clip them as `args.max_grad_norm` says.

        Raises:
            NoTaskError: The sparsity term did not reach the loss.
        """
        if not self._term_reached:
            raise NoTaskError(
                "The sparsity term did not reach the loss: the Trainer does not train on the loss that the model "
                "returns (compute_loss_func, label smoothing, or a compute_loss of its own). Add "
                "`callback.regularization()` to the loss in a compute_loss_func."
            )
        self._term_reached = False
        if self._optimizer is not None and self._max_norm is not None:
            self._task.gradients_ready(self._optimizer)
            torch.nn.utils.clip_grad_norm_(kwargs["model"].parameters(), self._max_norm)
        self._restore_max_grad_norm()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """End the last batch of the step."""
        self._task.end_batch()

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Save the states of session and model in the Trainer's checkpoint for `load_checkpoint`."""
        if args.should_save:
            folder = Path(str(args.output_dir)) / f"{PREFIX_CHECKPOINT_DIR}-{state.global_step}"
            model, session = self._session.model.state_dict(), self._session.state_dict()
            torch.save({"model": model, "session": session}, folder / SESSION_FILE)

    def _restore_max_grad_norm(self) -> None:
        """Restore `args.max_grad_norm`."""
        if self._args is not None and self._max_norm is not None:
            self._args.max_grad_norm, self._max_norm = self._max_norm, None

    # ---------------------------------------------------------------- the loss
    def regularization(self) -> Tensor:
        """Return this batch's part of the step's sparsity term, for your own `compute_loss_func`.

        If that function takes `num_items_in_batch`, the Trainer sums the losses of a step's batches without dividing
        them. So this is the term divided by the number of batches of the step.
        """
        args, world = self._args, 1
        if args is not None and args.average_tokens_across_devices:
            world = max(1, args.world_size)  # the Trainer multiplies such a loss by the number of processes
        return self._watch_backward(self._task.regularization() * (self._batch_share / world))

    def _watch_backward(self, term: Tensor) -> Tensor:
        """Return the term, in an autograd node that records whether the backward pass reached it."""
        watched: Tensor = _BackwardWatch.apply(term, self)
        return watched

    def _before_forward(self, model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Begin a pending batch at its first training forward, where its data is available."""
        if self._batch_pending and model.training:
            self._task.begin_batch(self._batch_number, self._batches_per_epoch, kwargs or args)
            self._batch_pending = False

    def _after_forward(self, model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
        """Add the sparsity term to the loss in the output of a training forward."""
        if not model.training or not torch.is_grad_enabled():
            return output
        # With num_items_in_batch the loss is not divided by the number of batches; else it is, and the term with it.
        summed = kwargs.get("num_items_in_batch") is not None
        if isinstance(output, MutableMapping) and isinstance(output.get("loss"), Tensor):
            term = self.regularization() if summed else self._watch_backward(self._task.regularization())
            output["loss"] = output["loss"] + term
        elif isinstance(output, tuple) and "labels" in kwargs:
            term = self.regularization() if summed else self._watch_backward(self._task.regularization())
            output = (output[0] + term, *output[1:])
        return output

    # ---------------------------------------------------------------- optimizer and scheduler
    def _move_embeddings_to_own_group(self, optimizer: Optimizer, scheduler: Any, args: TrainingArguments) -> None:
        """Move the task embeddings out of the Trainer's groups, which apply weight decay."""
        embeddings = list(self._session.embeddings.values())
        ids = {id(embedding) for embedding in embeddings}
        mixed = _mixed_groups(optimizer, ids)
        if not mixed:
            return
        if not isinstance(scheduler, LambdaLR):
            raise BadCallError(
                f"Expected a scheduler that scales all groups alike, but got {type(scheduler).__name__}. Pass "
                "Trainer(optimizers=(AdamW(session.parameter_groups(lr=...)), None))."
            )
        for group in mixed:
            group["params"] = [p for p in group["params"] if id(p) not in ids]
        factor = 10.0 if self._gate_lr is None else self._gate_lr / args.learning_rate
        rates = {name: mixed[0][name] * factor for name in ("lr", "initial_lr")}
        optimizer.add_param_group({**mixed[0], **rates, "params": embeddings, "weight_decay": 0.0})
        scheduler.base_lrs.append(rates["initial_lr"])
        scheduler.lr_lambdas.append(scheduler.lr_lambdas[0])

    def _set_num_labels(self, model: nn.Module) -> None:
        """Set `num_labels` of config and model to the task's, until it ends: losses read it from there."""
        config, labels = getattr(model, "config", None), self._head_size(model)
        if labels is not None and getattr(config, "num_labels", labels) != labels:
            for name in ("id2label", "label2id"):
                self._task.hooks.undo(setattr, config, name, getattr(config, name))
            setattr(config, "num_labels", labels)  # noqa: B010 - a config of any kind
        if labels is not None and getattr(model, "num_labels", labels) != labels:
            self._task.hooks.undo(setattr, model, "num_labels", model.num_labels)
            setattr(model, "num_labels", labels)  # noqa: B010 - text models copy it in their constructor

    def _head_size(self, model: nn.Module) -> int | None:
        """Return the number of outputs of the task's head; None with several heads, or a head of unknown type."""
        heads = [model.get_submodule(name) for name in self._session.graph.heads]
        if len(heads) != 1:
            return None
        # Attributes of linear layers, convolutions and transformers' own Conv1D.
        sizes = [getattr(heads[0], name) for name in ("out_features", "out_channels", "nf") if hasattr(heads[0], name)]
        return sizes[0] if sizes else None

    def _check_arguments(self, args: TrainingArguments, model: nn.Module) -> None:
        if model is not self._session.model:
            raise BadCallError("Expected the Trainer to train the session's model, but it has another one.")
        if args.n_gpu > 1:
            raise BadCallError(
                f"Expected one device per process, but the Trainer would replicate the model on {args.n_gpu} "
                "(nn.DataParallel). Start it with torchrun, or let CUDA_VISIBLE_DEVICES name one device."
            )
        if args.torch_compile:
            raise BadCallError("Expected torch_compile=False: the batch events of a task cannot be compiled.")


class _BackwardWatch(torch.autograd.Function):
    """The identity; its backward pass sets `_term_reached` of the callback."""

    @staticmethod
    def forward(ctx: Any, term: Tensor, callback: TaskCallback) -> Tensor:
        ctx.callback = callback
        return term.view_as(term)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        ctx.callback._term_reached = True
        return grad, None


def _mixed_groups(optimizer: Optimizer, ids: set[int]) -> list[dict[str, Any]]:
    """Return the parameter groups that hold parameters with these ids and others too."""
    return [g for g in optimizer.param_groups if 0 < sum(id(p) in ids for p in g["params"]) < len(g["params"])]


def _inner_optimizer(optimizer: Any) -> Any:
    """Return the optimizer inside an `AcceleratedOptimizer`, whose own step hooks never run."""
    while isinstance(optimizer, Optimizer) and not hasattr(optimizer, "_optimizer_step_pre_hooks"):
        optimizer = optimizer.optimizer  # type: ignore[attr-defined]
    return optimizer
