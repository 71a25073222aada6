"""The training loop of a scratch task: random targets for all outputs of the model in training mode."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from fgadahat_hooks.errors import BadCallError, FgadahatError
from fgadahat_hooks.graph.tracing.forward import call_model, copy_inputs, output_tensors
from fgadahat_hooks.tasks.sequence import TaskSequence
from fgadahat_hooks.tasks.task import Task


def parameter_groups(scratch: TaskSequence) -> list[dict[str, Any]]:
    """Return parameter groups as before the first task: an optimizer kept since then holds frozen parameters too.

    No option but the weight decay of embeddings is set, so that those of the user's optimizer apply.
    """
    embeddings = [gate.embedding for gate in scratch.attached.gates.values()]
    embedding_ids = {id(e) for e in embeddings}
    parameters = [p for p in scratch.attached.model.parameters() if p.requires_grad and id(p) not in embedding_ids]
    groups: list[dict[str, Any]] = [{"params": parameters}, {"params": embeddings, "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]


@dataclass(frozen=True)
class ScratchStep:
    """One step of a scratch task, for a function of the user's that makes it as their own loop does.

    Calling it makes the step plainly: `backward`, then the optimizer's step.

    Attributes:
        model: The copy that is trained.
        optimizer: The optimizer that steps it.
        backward: Clears the gradients, runs the model and fills them; returns the loss.
        number: Number of the step in its task, from 1.
        total: Number of steps of the task.
    """

    model: nn.Module
    optimizer: Optimizer
    backward: Callable[[], float]
    number: int
    total: int

    def __call__(self) -> None:
        """Make the step."""
        if _needs_closure(self.optimizer):
            self.optimizer.step(self.backward)
        else:
            self.backward()
            self.optimizer.step()


Around = Callable[[ScratchStep], object]


def _plainly(step: ScratchStep) -> None:
    step()


class ScratchSteps:
    """Steps of one scratch task, under the same protection as the user's own tasks."""

    def __init__(
        self, scratch: TaskSequence, task: Task, optimizer: Optimizer, inputs: Any, around: Around | None = None
    ) -> None:
        """Prepare; no step is made yet."""
        self._model = scratch.attached.model
        self._task = task
        self._optimizer = optimizer
        self._inputs = inputs
        self._around = around or _plainly

    def run(self, steps: int) -> None:
        """Train for some steps; the gates anneal as in one epoch of as many batches.

        An optimizer that has `train()` and `eval()`, as schedule-free ones do, is told of both.
        """
        self._model.train()
        getattr(self._optimizer, "train", _nothing)()
        for number in self._task.batches(range(1, steps + 1)):
            self._around(ScratchStep(self._model, self._optimizer, self._backward, number, steps))
        getattr(self._optimizer, "eval", _nothing)()

    def _backward(self) -> float:
        self._optimizer.zero_grad()
        loss = self._target_loss() + self._task.regularization()
        loss.backward()
        return float(loss.detach())

    def _target_loss(self) -> Tensor:
        """Return the mean distance of all outputs from random targets, which gives every output element a gradient."""
        outputs = [t for t in output_tensors(self._forward()) if t.requires_grad and t.numel()]
        if not outputs:
            raise BadCallError(
                "Expected a floating-point output with a gradient in training, but the model gave none. Pass inputs "
                "with which it has one: session.verify(inputs, optimizer=...)."
            )
        losses = [(t - torch.randn_like(t)).abs().mean().float() for t in outputs]
        return torch.stack([loss.to(losses[0].device) for loss in losses]).sum()

    def _forward(self) -> Any:
        try:
            return call_model(self._model, copy_inputs(self._inputs))
        except FgadahatError:
            raise
        except Exception as error:
            raise BadCallError(
                "Expected inputs that the model can be trained on, but its forward in training mode raised "
                f"{type(error).__name__}: {error}. Pass such a batch, of several samples where norms need them: "
                "session.verify(inputs, optimizer=...)."
            ) from error


def _nothing() -> None:
    return None


def _needs_closure(optimizer: Optimizer) -> bool:
    """Return whether `step` requires a closure, as in LBFGS."""
    closure = inspect.signature(optimizer.step).parameters.get("closure")
    return closure is not None and closure.default is inspect.Parameter.empty
