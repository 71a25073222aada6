"""Add the sparsity term to a training step: to the loss, or to the gradients in manual optimization."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from lightning.pytorch import Trainer
from torch import Tensor
from torch.optim import Optimizer

import fgadahat_hooks as fh

if TYPE_CHECKING:
    from fgadahat_hooks import Task


def add_to_loss(task: Task, trainer: Trainer, loss: Tensor) -> None:
    """Add the term to a loss in place, divided and scaled as Lightning divided and scaled the loss."""
    term = task.regularization() / trainer.accumulate_grad_batches
    scaler = getattr(trainer.precision_plugin, "scaler", None)
    if scaler is not None:
        term = scaler.scale(term)
    loss.add_(term.to(loss))


def add_to_gradients(task: Task, session: fh.Session, optimizer: Optimizer) -> None:
    """Add the term's gradient to the gradients of the embeddings in an optimizer."""
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    embeddings = [e for e in session.embeddings.values() if id(e) in held and e.requires_grad]
    if not embeddings:
        return
    with torch.enable_grad():
        grads = torch.autograd.grad(task.regularization(), embeddings)
    for embedding, grad in zip(embeddings, grads, strict=True):
        embedding.grad = grad if embedding.grad is None else embedding.grad.add_(grad)
