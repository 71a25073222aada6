"""Hugging Face Accelerate: the plain loop's events for prepared models, optimizers and loaders."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sized
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from fgadahat_hooks.errors import BadCallError, NoTaskError

if TYPE_CHECKING:
    from accelerate import Accelerator

    from fgadahat_hooks import Session, Task

T = TypeVar("T")

_PLAIN = ("NO", "MULTI_CPU", "MULTI_GPU", "MULTI_NPU", "MULTI_XPU", "MULTI_MLU", "MULTI_MUSA", "MULTI_SDAA")
"""Names of the distributed types under which every process holds whole parameters: none, and DDP."""


@contextmanager
def accelerate_task(
    session: Session, accelerator: Accelerator, task: str | int, num_classes: int | None = None, **options: Any
) -> Iterator[AcceleratedTask]:
    """Begin a task of a session for a loop that runs on an `Accelerator`; its end is the end of the block.

    The accelerator lets go of what it has prepared before (`accelerator.free_memory`): prepare models, optimizers and
    loaders inside the block, those kept from an earlier task too.

    Args:
        session: The session of the bare model; attach before `accelerator.prepare`.
        accelerator: The accelerator of the loop.
        task: Id of the task.
        num_classes: Number of outputs of this task's head.
        **options: Further options of `session.task`.

    Yields:
        The task, with the calls that know of the accelerator.

    Raises:
        BadCallError: The accelerator shards parameters (FSDP, DeepSpeed, Megatron), which gates cannot follow.
    """
    if accelerator.distributed_type.name not in _PLAIN:
        raise BadCallError(
            f"Expected an Accelerator for one process or for DDP, but got distributed_type "
            f"{accelerator.distributed_type.name}. Gates and rates need whole parameters: use DDP."
        )
    accelerator.free_memory()  # an earlier task's optimizers would be un-scaled and saved along with this one's
    with session.task(task, num_classes, **options) as running:
        yield AcceleratedTask(session, running, accelerator)


class AcceleratedTask:
    """A running task and the accelerator it runs on; made by `accelerate_task`.

    Attributes:
        task: The running task itself.
    """

    def __init__(self, session: Session, task: Task, accelerator: Accelerator) -> None:
        """Protect nothing yet."""
        self.task = task
        self._session = session
        self._accelerator = accelerator
        self._optimizers: list[Optimizer] = []

    def prepare(self, *objects: Any) -> Any:
        """Do what `accelerator.prepare` does, and protect the optimizers among the objects.

        The model is wrapped anew in each task, so that DDP knows the parameters of the task's own head. Pass the bare
        model or what an earlier task's `prepare` returned for it.

        Returns:
            The prepared objects in the same order, a single one by itself.

        Raises:
            NoTaskError: The task has ended.
            ForeignOptimizerError: An optimizer holds no parameter of the model.
        """
        bare = [self._bare(o) if isinstance(o, nn.Module) else o for o in objects]
        prepared = self._accelerator.prepare(*bare)
        for one in prepared if isinstance(prepared, tuple) else (prepared,):
            if isinstance(one, Optimizer):
                self.protect(one)
        return prepared

    def _bare(self, module: nn.Module) -> nn.Module:
        """Return what is inside a wrapper of the session's model, without what an earlier `prepare` put on it."""
        model: nn.Module = self._accelerator.unwrap_model(module, keep_torch_compile=False)
        if all(part is not self._session.model for part in model.modules()):
            return module
        model.__dict__.pop("_is_accelerate_prepared", None)
        original = model.__dict__.pop("_original_forward", None)
        if original is not None:
            model.__dict__.pop("forward", None)
            if getattr(original, "__func__", None) is not type(model).forward:
                model.forward = original
        return model

    def protect(self, optimizer: Optimizer) -> Optimizer:
        """Protect finished tasks from an optimizer, prepared or not; return it. `prepare` does it for you.

        Steps that accumulation leaves out or that the gradient scaler skips do not count.

        Raises:
            NoTaskError: The task has ended.
            BadCallError: It is no `torch.optim.Optimizer`.
            ForeignOptimizerError: It holds no parameter of the model.
        """
        inner = _inner(optimizer)
        self.task.protect(inner)
        if all(inner is not known for known in self._optimizers):
            self._optimizers.append(inner)
        return optimizer

    def batches(self, loader: Iterable[T], *, num_batches: int | None = None, done: int = 0) -> Iterator[T]:
        """Go over the batches that this process gets of one epoch, annealing the gates over them.

        Args:
            loader: A prepared loader, or any iterable of batches.
            num_batches: Number of batches of the whole epoch for this process; needed if the loader has no length.
            done: Batches of this epoch that were used before a restart; `loader` gives the others
                (`accelerator.skip_first_batches`).

        Yields:
            The loader's batches, unchanged.

        Raises:
            NoTaskError: The task has ended.
            BadCallError: The number of batches cannot be told, or the loader gives more than that.
        """
        total = num_batches if num_batches is not None else _length(loader) + done
        if done == 0:
            yield from self.task.batches(loader, num_batches=total)
            return
        for number, batch in enumerate(loader, start=done + 1):
            self.task.begin_batch(number, total, batch)
            yield batch
            self.task.end_batch()

    def backward(self, loss: Tensor, **options: Any) -> None:
        """Call `accelerator.backward` on the loss with the sparsity term added.

        Give the loss as the accelerator wants it: not divided by the number of accumulated batches and not scaled. The
        accelerator divides and scales both parts alike, so that the batches of one step add one sparsity term.

        Raises:
            NoTaskError: The task has ended.
        """
        self._accelerator.backward(loss + self.task.regularization(), **options)

    def clip_grad_norm_(self, parameters: Iterable[Tensor], max_norm: float, norm_type: float = 2.0) -> Tensor | None:
        """Clip as `accelerator.clip_grad_norm_` does, after importance has seen the gradients as they are.

        Call it where you called the accelerator's; while gradients are only accumulated it does nothing.

        Returns:
            The norm before clipping, None while gradients are only accumulated.
        """
        if not self._gradients_ready():
            return None
        return torch.nn.utils.clip_grad_norm_(parameters, max_norm, norm_type=norm_type)

    def clip_grad_value_(self, parameters: Iterable[Tensor], clip_value: float) -> None:
        """Clip as `accelerator.clip_grad_value_` does, after importance has seen the gradients as they are."""
        if self._gradients_ready():
            torch.nn.utils.clip_grad_value_(parameters, clip_value)

    def _gradients_ready(self) -> bool:
        """Un-scale the gradients of a complete step and let the callbacks see them."""
        if not self._optimizers:
            raise NoTaskError(
                "No optimizer is protected in this task. Call `task.prepare(model, optimizer, ...)` first."
            )
        if not self._accelerator.sync_gradients:
            return False
        self._accelerator.unscale_gradients(self._optimizers)
        for optimizer in self._optimizers:
            self.task.gradients_ready(optimizer)
        return True


def _inner(optimizer: Any) -> Any:
    """Return the optimizer inside an `AcceleratedOptimizer`, which runs no step hooks of its own."""
    while isinstance(optimizer, Optimizer) and not hasattr(optimizer, "_optimizer_step_pre_hooks"):
        optimizer = optimizer.optimizer  # type: ignore[attr-defined]
    return optimizer


def _length(loader: Iterable[Any]) -> int:
    try:
        if isinstance(loader, Sized):
            return len(loader)
    except TypeError:  # a DataLoader over an IterableDataset has __len__ and refuses it
        pass
    raise BadCallError(
        f"Expected `num_batches` for a loader without a length ({type(loader).__name__}): the gates are annealed over "
        "the batches of an epoch that this process gets. Pass task.batches(loader, num_batches=...)."
    )
