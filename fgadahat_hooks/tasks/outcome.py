"""What a task has learnt, seen on its last training batches: accuracy and loss under the hard mask, and reuse."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from fgadahat_hooks.errors import FgadahatError
from fgadahat_hooks.hooks import HookSet
from fgadahat_hooks.importance.attribution.target import logits_of
from fgadahat_hooks.tasks.norm_statistics import buffers_kept
from fgadahat_hooks.tasks.recent_forwards import RecentForwards
from fgadahat_hooks.tasks.recorded_forward import RecordedForward
from fgadahat_hooks.tasks.reuse import ReuseMeter
from fgadahat_hooks.tasks.sequence import TaskSequence

MAX_FORWARDS = 8


@dataclass
class Outcome:
    """A task on its last training batches, in evaluation mode under its hard mask.

    Attributes:
        samples: Number of samples with a label; 0 if the loader's batches hold no class numbers.
        accuracy: Share of samples that are classified right.
        most_frequent: Share of the most frequent label: what a constant answer reaches.
        classes: Number of different labels.
        loss: Mean cross entropy.
        training_loss: That of the same batches when they were trained on; None if the logits were not seen.
        agreement: Share of samples of which a step of the loss raises the logit of the label most, by its gradient;
            None if no gradient was seen. Near 1 the labels are those of the loss.
        failed: Why the batches could not be run again; empty if they could.
        reuse: Of each layer that reads gated units, the share of its signal that comes from units of earlier tasks.
    """

    samples: int = 0
    accuracy: float = 0.0
    most_frequent: float = 0.0
    classes: int = 0
    loss: float = 0.0
    training_loss: float | None = None
    agreement: float | None = None
    reuse: dict[str, float] = field(default_factory=dict)
    failed: str = ""


def outcome_of(sequence: TaskSequence, recent: RecentForwards) -> Outcome:
    """Run the last training forwards again in evaluation mode; the model and random numbers stay as they are."""
    forwards = recent.last(MAX_FORWARDS)
    model, meter = sequence.attached.model, ReuseMeter(sequence.attached, sequence.state)
    try:
        with sequence.using_running(), torch.no_grad(), buffers_kept(model), HookSet.temporary() as hooks:
            meter.watch(hooks)
            for module in model.modules():
                module.training = False
            outputs = [recent.run(model, forward) for forward in forwards]
        found = _classified(forwards, outputs)
        found.reuse = meter.shares()
    except Exception as error:
        return Outcome(failed=f"{type(error).__name__}: {error}")
    return found


class _Row(NamedTuple):
    """The samples of one forward that have a label: logits now, labels, and logits and gradient in training."""

    logits: Tensor
    labels: Tensor
    trained: Tensor | None
    gradient: Tensor | None


def _classified(forwards: list[RecordedForward], outputs: list[object]) -> Outcome:
    """Return accuracy and losses over the forwards whose outputs are logits for their labels."""
    found = [row for forward, output in zip(forwards, outputs, strict=True) if (row := _row(forward, output))]
    rows = [row for row in found if row.logits.shape[1] == found[-1].logits.shape[1]]
    if not rows:
        return Outcome()
    logits, labels = torch.cat([row.logits for row in rows]), torch.cat([row.labels for row in rows])
    trained = [row.trained for row in rows if row.trained is not None]
    counts = torch.bincount(labels)
    return Outcome(
        len(labels),
        float((logits.argmax(1) == labels).double().mean()),
        float(counts.max() / counts.sum()),
        int((counts > 0).sum()),
        float(F.cross_entropy(logits, labels)),
        float(F.cross_entropy(torch.cat(trained), labels)) if len(trained) == len(rows) else None,
        _agreement(rows),
    )


def _agreement(rows: list[_Row]) -> float | None:
    """Return the share of samples of which the gradient is most negative at the label, of those that have one."""
    seen = [(row.gradient, row.labels) for row in rows if row.gradient is not None]
    hits = [g.argmin(1)[moved := (g < 0).any(1)] == labels[moved] for g, labels in seen]
    found = torch.cat(hits) if hits else torch.zeros(0)
    return float(found.double().mean()) if len(found) else None


def _row(forward: RecordedForward, output: object) -> _Row | None:
    """Return the samples of a forward that have a label; None if labels and output do not fit."""
    try:
        logits = logits_of(output).double()
    except FgadahatError:
        return None
    if forward.labels is None or len(forward.labels) != len(logits):
        return None
    labels = forward.labels.to(logits.device).long()
    rows = labels >= 0  # a label such as -100 is one that the loss leaves out
    if not bool(rows.any()) or int(labels.max()) >= logits.shape[1]:
        return None
    fitting = [v if v is not None and v.shape == logits.shape else None for v in (forward.logits, forward.gradient)]
    trained, gradient = (None if value is None else value.to(logits)[rows] for value in fitting)
    return _Row(logits[rows], labels[rows], trained, gradient)
