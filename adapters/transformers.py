"""The Hugging Face Trainer: a task's events from a `TrainerCallback`."""

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
"""What the callback puts into each checkpoint of the Trainer."""


def load_checkpoint(session: Session, folder: str | Path) -> None:
    """Take back what a `TaskCallback` put into a checkpoint, before the task goes on.

    The Trainer loads the rest of the checkpoint itself, if it was given an optimizer made of
    `session.parameter_groups`::

        load_checkpoint(session, folder)
        with session.task("birds", resume=True) as task:
            optimizers = (AdamW(session.parameter_groups(lr=1e-3)), None)
            trainer = Trainer(model, args, optimizers=optimizers, callbacks=[TaskCallback(session, task)])
            trainer.train(resume_from_checkpoint=folder)

    The model is loaded too: the Trainer saves some models under other names than it looks for, and then goes on with
    a warning and untrained weights.

    Args:
        session: A session on the same model, attached in the same way.
        folder: The checkpoint.

    Raises:
        BadCallError: The folder holds no such checkpoint.
        StateMismatchError: It is the state of another model.
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
    """Lets a `transformers.Trainer` learn one task; the Trainer and the model stay as they are.

    Use it in a task's block, with a Trainer made inside it, so that a run that fails leaves the task as any exception
    does and DDP is built around the task's own head::

        with session.task("birds", num_classes=20) as task:
            Trainer(model, args, train_dataset=birds, callbacks=[TaskCallback(session, task)]).train()

    The optimizer that the Trainer makes is protected; the task embeddings get a group of their own in it, without
    weight decay. The sparsity term is added to the loss that the model returns. Evaluation during training runs under
    the task's current hard mask.

    Args:
        session: The session of the bare model.
        task: The running task.
        gate_lr: Learning rate of the task embeddings; ten times `args.learning_rate` when left out. Not used if you
            pass the Trainer an optimizer made of `session.parameter_groups`.
    """

    def __init__(self, session: Session, task: Task, gate_lr: float | None = None) -> None:
        """Wait for the Trainer."""
        self._session = session
        self._task = task
        self._gate_lr = gate_lr
        self._optimizer: Optimizer | None = None
        self._args: TrainingArguments | None = None
        self._max_norm: float | None = None
        self._batches = 1
        self._number = 0
        self._accumulate = 1
        self._share = 1.0
        self._new = False
        self._added = False

    # ---------------------------------------------------------------- the Trainer's events
    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Protect the optimizer and watch the model.

        Raises:
            BadCallError: The Trainer would replicate, compile or shard the model, or its scheduler is not known.
            NoTaskError: The task has ended.
        """
        self._refuse(args, kwargs["model"])
        self._tell_labels(kwargs["model"])
        optimizer, loader = _inner(kwargs["optimizer"]), kwargs["train_dataloader"]
        self._give_own_group(optimizer, kwargs["lr_scheduler"], args)
        self._task.protect(optimizer)
        self._accumulate = args.gradient_accumulation_steps
        self._batches = len(loader) if has_length(loader) else args.max_steps * self._accumulate
        if self._args is None:
            self._task.hooks.forward_pre(self._session.model, self._before_forward, kwargs=True)
            self._task.hooks.forward(self._session.model, self._after_forward, kwargs=True)
            self._task.hooks.undo(self._leave)
        self._optimizer, self._args = optimizer, args

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Count the batches of the epoch, those before a restart included."""
        updates = math.ceil(self._batches / self._accumulate)
        self._number = state.global_step % updates * self._accumulate

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Announce the first batch of a step, and leave the clipping of its gradients to `on_pre_optimizer_step`."""
        left = self._batches - self._number
        self._share = 1 / max(1, min(self._accumulate, left))
        self._number, self._new = self._number + 1, True
        if args.max_grad_norm > 0 and self._max_norm is None:
            self._max_norm = args.max_grad_norm
            args.max_grad_norm = math.inf  # so that the Trainer un-scales gradients and tells their norm, no more

    def on_substep_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Announce the next batch of the same step."""
        self._task.end_batch()
        self._number, self._new = self._number + 1, True

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Let the callbacks see the gradients, then clip them as the arguments ask.

        Raises:
            NoTaskError: The sparsity term did not reach the loss.
        """
        if not self._added:
            raise NoTaskError(
                "The sparsity term did not reach the loss: the Trainer does not train on the loss that the model "
                "returns (compute_loss_func, label smoothing, or a compute_loss of its own). Add "
                "`callback.regularization()` to the loss in a compute_loss_func."
            )
        self._added = False
        if self._optimizer is not None and self._max_norm is not None:
            self._task.gradients_ready(self._optimizer)
            torch.nn.utils.clip_grad_norm_(kwargs["model"].parameters(), self._max_norm)
        self._leave()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Announce the end of the step's last batch."""
        self._task.end_batch()

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Put the session's state, and the model's, into the Trainer's checkpoint for `load_checkpoint`."""
        if args.should_save:
            folder = Path(str(args.output_dir)) / f"{PREFIX_CHECKPOINT_DIR}-{state.global_step}"
            model, session = self._session.model.state_dict(), self._session.state_dict()
            torch.save({"model": model, "session": session}, folder / SESSION_FILE)

    def _leave(self) -> None:
        """Give the arguments back as they were."""
        if self._args is not None and self._max_norm is not None:
            self._args.max_grad_norm, self._max_norm = self._max_norm, None

    # ---------------------------------------------------------------- the loss
    def regularization(self) -> Tensor:
        """Return this batch's part of the step's sparsity term, for a `compute_loss_func` of your own.

        The Trainer adds the losses of a step's batches up as they are when the function takes `num_items_in_batch`; so
        this is the term divided by the number of batches of the step.
        """
        args, world = self._args, 1
        if args is not None and args.average_tokens_across_devices:
            world = max(1, args.world_size)  # the Trainer multiplies such a loss by the number of processes
        return self._noted(self._task.regularization() * (self._share / world))

    def _noted(self, term: Tensor) -> Tensor:
        """Return a term that tells when the backward pass has come to it."""
        noted: Tensor = _Noted.apply(term, self)
        return noted

    def _before_forward(self, model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Anneal at the first training forward of a batch, where its data can be seen."""
        if self._new and model.training:
            self._task.begin_batch(self._number, self._batches, kwargs or args)
            self._new = False

    def _after_forward(self, model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
        """Add the sparsity term to the loss among a training forward's outputs."""
        if not model.training or not torch.is_grad_enabled():
            return output
        # A loss over all samples of the step is not divided any more; another one is, and the term with it.
        summed = kwargs.get("num_items_in_batch") is not None
        if isinstance(output, MutableMapping) and isinstance(output.get("loss"), Tensor):
            term = self.regularization() if summed else self._noted(self._task.regularization())
            output["loss"] = output["loss"] + term
        elif isinstance(output, tuple) and "labels" in kwargs:
            term = self.regularization() if summed else self._noted(self._task.regularization())
            output = (output[0] + term, *output[1:])
        return output

    # ---------------------------------------------------------------- optimizer and scheduler
    def _give_own_group(self, optimizer: Optimizer, scheduler: Any, args: TrainingArguments) -> None:
        """Move the task embeddings out of the Trainer's groups, which decay them."""
        embeddings = list(self._session.embeddings.values())
        ids = {id(e) for e in embeddings}
        mixed = [g for g in optimizer.param_groups if 0 < sum(id(p) in ids for p in g["params"]) < len(g["params"])]
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

    def _tell_labels(self, model: nn.Module) -> None:
        """Tell the model how many labels this task has, until the task ends: the losses ask its config, or itself."""
        config = getattr(model, "config", None)
        heads = [model.get_submodule(name) for name in self._session.graph.heads]
        sizes = ("out_features", "out_channels", "nf")  # of linear layers, convolutions and the library's own Conv1D
        told = [getattr(heads[0], size) for size in sizes if hasattr(heads[0], size)] if len(heads) == 1 else []
        labels = told[0] if told else None
        if labels is not None and getattr(config, "num_labels", labels) != labels:
            for name in ("id2label", "label2id"):
                self._task.hooks.undo(setattr, config, name, getattr(config, name))
            setattr(config, "num_labels", labels)  # noqa: B010 - a config of any kind
        if labels is not None and getattr(model, "num_labels", labels) != labels:
            self._task.hooks.undo(setattr, model, "num_labels", model.num_labels)
            setattr(model, "num_labels", labels)  # noqa: B010 - models of text copy it when they are made

    def _refuse(self, args: TrainingArguments, model: nn.Module) -> None:
        if model is not self._session.model:
            raise BadCallError("Expected the Trainer to train the session's model, but it has another one.")
        if args.n_gpu > 1:
            raise BadCallError(
                f"Expected one device per process, but the Trainer would replicate the model on {args.n_gpu} "
                "(nn.DataParallel). Start it with torchrun, or let CUDA_VISIBLE_DEVICES name one device."
            )
        if args.torch_compile:
            raise BadCallError("Expected torch_compile=False: the batch events of a task cannot be compiled.")


class _Noted(torch.autograd.Function):
    """The identity, whose backward pass notes that it was reached."""

    @staticmethod
    def forward(ctx: Any, term: Tensor, callback: TaskCallback) -> Tensor:
        ctx.callback = callback
        return term.view_as(term)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        ctx.callback._added = True
        return grad, None


def _inner(optimizer: Any) -> Any:
    """Return the optimizer inside Accelerate's, which runs no step hooks of its own."""
    while isinstance(optimizer, Optimizer) and not hasattr(optimizer, "_optimizer_step_pre_hooks"):
        optimizer = optimizer.optimizer  # type: ignore[attr-defined]
    return optimizer
