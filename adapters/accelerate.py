"""Hugging Face Accelerate: a task for loops with prepared models, optimizers and loaders."""

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

_UNSHARDED = ("NO", "MULTI_CPU", "MULTI_GPU", "MULTI_NPU", "MULTI_XPU", "MULTI_MLU", "MULTI_MUSA", "MULTI_SDAA")
"""Distributed types under which every process holds whole parameters: a single process, and DDP."""


@contextmanager
def accelerate_task(
    session: Session, accelerator: Accelerator, task: str | int, num_classes: int | None = None, **options: Any
) -> Iterator[AcceleratedTask]:
    """Run a task of a session in a loop on an `Accelerator`; the task ends with the block.

    Objects prepared earlier are released (`accelerator.free_memory`): prepare models, optimizers and loaders inside the
    block, including those kept from an earlier task.

    Args:
        session: The session of the bare model; attach before `accelerator.prepare`.
        accelerator: The accelerator of the loop.
        task: Id of the task.
        num_classes: Number of outputs of this task's head.
        **options: Further options of `session.task`.

    Yields:
        The task, with methods that go through the accelerator.

    Raises:
        BadCallError: The accelerator shards parameters (FSDP, DeepSpeed, Megatron), which gates do not support.
    """
    if accelerator.distributed_type.name not in _UNSHARDED:
        raise BadCallError(
            f"Expected an Accelerator for one process or for DDP, but got distributed_type "
            f"{accelerator.distributed_type.name}. Gates and rates need whole parameters: use DDP."
        )
    accelerator.free_memory()  # else optimizers of an earlier task would be un-scaled and saved too
    with session.task(task, num_classes, **options) as running:
        yield AcceleratedTask(session, running, accelerator)


class AcceleratedTask:
    """A running task and the accelerator it runs on; made by `accelerate_task`.

    Attributes:
        task: The running task itself.
    """

    def __init__(self, session: Session, task: Task, accelerator: Accelerator) -> None:
        """Start without protected optimizers."""
        self.task = task
        self._session = session
        self._accelerator = accelerator
        self._optimizers: list[Optimizer] = []

    def prepare(self, *objects: Any) -> Any:
        """Call `accelerator.prepare`, and protect finished tasks from the optimizers among the objects.

        The model is wrapped again in each task, so that DDP includes the parameters of the task's own head. Pass the
        bare model, or the wrapper that an earlier task's `prepare` returned.

        Returns:
            The prepared objects in the same order; a single object is not put into a tuple.

        Raises:
            NoTaskError: The task has ended.
            ForeignOptimizerError: An optimizer holds no parameter of the model.
        """
        bare = [self._unwrapped(o) if isinstance(o, nn.Module) else o for o in objects]
        prepared = self._accelerator.prepare(*bare)
        for item in prepared if isinstance(prepared, tuple) else (prepared,):
            if isinstance(item, Optimizer):
                self.protect(item)
        return prepared

    def _unwrapped(self, module: nn.Module) -> nn.Module:
        """Unwrap the session's model and undo an earlier `prepare`; return other modules unchanged."""
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
        """Protect finished tasks from an optimizer, prepared or not, and return it; `prepare` calls this.

        Steps skipped by gradient accumulation or by the gradient scaler do not count.

        Raises:
            NoTaskError: The task has ended.
            BadCallError: `optimizer` is not a `torch.optim.Optimizer`.
            ForeignOptimizerError: It holds no parameter of the model.
        """
        inner = _inner_optimizer(optimizer)
        self.task.protect(inner)
        if all(inner is not known for known in self._optimizers):
            self._optimizers.append(inner)
        return optimizer

    def batches(self, loader: Iterable[T], *, num_batches: int | None = None, done: int = 0) -> Iterator[T]:
        """Iterate this process's batches of one epoch and anneal the gates over them.

        Args:
            loader: A prepared loader, or any iterable of batches.
            num_batches: Number of this process's batches in the whole epoch; needed if the loader has no length.
            done: Batches of this epoch that were used before a restart; `loader` yields the others
                (`accelerator.skip_first_batches`).

        Yields:
            The loader's batches, unchanged.

        Raises:
            NoTaskError: The task has ended.
            BadCallError: The number of batches is unknown, or the loader yields more.
        """
        total = num_batches if num_batches is not None else _num_batches(loader) + done
        if done == 0:
            yield from self.task.batches(loader, num_batches=total)
            return
        for number, batch in enumerate(loader, start=done + 1):
            self.task.begin_batch(number, total, batch)
            yield batch
            self.task.end_batch()

    def backward(self, loss: Tensor, **options: Any) -> None:
        """Call `accelerator.backward` on the loss plus the sparsity term.

        Pass the loss as for the accelerator: not divided by the number of accumulated batches, and not scaled. The
        accelerator divides and scales both terms, so that the batches of one step sum to one sparsity term.

        Raises:
            NoTaskError: The task has ended.
        """
        self._accelerator.backward(loss + self.task.regularization(), **options)

    def clip_grad_norm_(self, parameters: Iterable[Tensor], max_norm: float, norm_type: float = 2.0) -> Tensor | None:
        """Clip as `accelerator.clip_grad_norm_` does, after importance callbacks have read the unclipped gradients.

        Call it in place of the accelerator's method; it does nothing while gradients accumulate.

        Returns:
            The norm before clipping; None while gradients accumulate.
        """
        if not self._gradients_ready():
            return None
        return torch.nn.utils.clip_grad_norm_(parameters, max_norm, norm_type=norm_type)

    def clip_grad_value_(self, parameters: Iterable[Tensor], clip_value: float) -> None:
        """Clip as `accelerator.clip_grad_value_` does, after importance callbacks have read the unclipped gradients."""
        if self._gradients_ready():
            torch.nn.utils.clip_grad_value_(parameters, clip_value)

    def _gradients_ready(self) -> bool:
        """Un-scale the gradients of a complete step and pass them to the callbacks; False while they accumulate."""
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


def _inner_optimizer(optimizer: Any) -> Any:
    """Return the optimizer inside an `AcceleratedOptimizer`, whose own step hooks never run."""
    while isinstance(optimizer, Optimizer) and not hasattr(optimizer, "_optimizer_step_pre_hooks"):
        optimizer = optimizer.optimizer  # type: ignore[attr-defined]
    return optimizer


def _num_batches(loader: Iterable[Any]) -> int:
    try:
        if isinstance(loader, Sized):
            return len(loader)
    except TypeError:  # a DataLoader over an IterableDataset has __len__, which raises
        pass
    raise BadCallError(
        f"Expected `num_batches` for a loader without a length ({type(loader).__name__}): the gates are annealed over "
        "the batches of an epoch that this process gets. Pass task.batches(loader, num_batches=...)."
    )
