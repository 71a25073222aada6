"""What a task has learnt, seen on its last training batches: accuracy and loss under the hard mask, and reuse."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional as F

from fgadahat_hooks.errors import FgadahatError
from fgadahat_hooks.hooks import HookSet
from fgadahat_hooks.importance.attribution.target import logits_of
from fgadahat_hooks.tasks.norm_statistics import buffers_kept
from fgadahat_hooks.tasks.recent_forwards import RecentForwards, RecordedForward
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
        failed: Why the batches could not be run again; empty if they could.
        reuse: Of each layer that reads gated units, the share of its signal that comes from units of earlier tasks.
    """

    samples: int = 0
    accuracy: float = 0.0
    most_frequent: float = 0.0
    classes: int = 0
    loss: float = 0.0
    training_loss: float | None = None
    reuse: dict[str, float] = field(default_factory=dict)
    failed: str = ""


def outcome_of(sequence: TaskSequence, recent: RecentForwards) -> Outcome:
    """Run the last training forwards again in evaluation mode; the model and random numbers stay as they are."""
    forwards = [forward for forward in recent.forwards if forward.unchanged][-MAX_FORWARDS:]
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


def _classified(forwards: list[RecordedForward], outputs: list[object]) -> Outcome:
    """Return accuracy and losses over the forwards whose outputs are logits for their labels."""
    found = [row for forward, output in zip(forwards, outputs, strict=True) if (row := _row(forward, output))]
    rows = [row for row in found if row[0].shape[1] == found[-1][0].shape[1]]
    if not rows:
        return Outcome()
    logits, labels = (torch.cat(parts) for parts in zip(*[row[:2] for row in rows], strict=True))
    trained = [row[2] for row in rows]
    counts = torch.bincount(labels)
    return Outcome(
        len(labels),
        float((logits.argmax(1) == labels).double().mean()),
        float(counts.max() / counts.sum()),
        int((counts > 0).sum()),
        float(F.cross_entropy(logits, labels)),
        None if any(part is None for part in trained) else float(F.cross_entropy(torch.cat(trained), labels)),  # type: ignore[arg-type]
    )


def _row(forward: RecordedForward, output: object) -> tuple[Tensor, Tensor, Tensor | None] | None:
    """Return logits, labels and logits while training of the samples that have a label; None if they do not fit."""
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
    trained = forward.logits if forward.logits is not None and forward.logits.shape == logits.shape else None
    return logits[rows], labels[rows], None if trained is None else trained.double()[rows]
