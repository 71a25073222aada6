"""What is attributed, one number a sample: by default the logit of the true label."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from fgadahat_hooks.errors import BadCallError, CapabilityError

_LABEL_KEYS = ("labels", "label", "targets", "target", "y")
_OWN_TARGET = (
    "Give a target of your own, a function that returns one number a sample: "
    "ImportanceCallback(..., target=lambda output, data: ...)."
)


def logits_of(output: Any) -> Tensor:
    """Return the class logits `(batch, classes)` in a model's output.

    These are the output itself, its `logits` (attribute or key), or the first tensor of a tuple.

    Raises:
        CapabilityError: There are none.
    """
    found = _logits_candidate(output)
    if isinstance(found, Tensor) and found.dim() == 2 and found.is_floating_point():
        return found
    shape = tuple(found.shape) if isinstance(found, Tensor) else type(output).__name__
    raise CapabilityError(
        f"Expected the model to put out class logits (batch, classes), but got {shape}. {_OWN_TARGET}"
    )


def _logits_candidate(output: Any) -> Any:
    """Return the part of the output where logits are expected, or None."""
    if isinstance(output, Mapping):
        return output.get("logits")
    if isinstance(output, Tensor):
        return output
    found = getattr(output, "logits", None)
    if found is None and isinstance(output, tuple | list):
        return next((t for t in output if isinstance(t, Tensor)), None)
    return found


def labels_of(data: Any) -> Tensor:
    """Return the labels in a loader's batch: the last part of a tuple, or a key such as `labels`.

    Raises:
        BadCallError: There are none.
    """
    found: Any = None
    if isinstance(data, Mapping) or hasattr(data, "keys"):
        found = next((data[key] for key in _LABEL_KEYS if key in data), None)
    elif isinstance(data, tuple | list) and len(data) > 1:
        found = data[-1]
    if isinstance(found, Tensor):
        return found
    got = "nothing" if data is None else f"a {type(data).__name__}"
    raise BadCallError(
        f"Expected the batch to hold the true labels, as (inputs, labels) or under a key of {', '.join(_LABEL_KEYS)}, "
        f"but got {got}. Go over `task.batches(loader)`, call `task.begin_batch(n, total, data=batch)`, or give a "
        "target of your own: ImportanceCallback(..., target=lambda output, data: ...)."
    )


def label_scores(output: Any, labels: Tensor) -> Tensor:
    """Return the logit of each sample's true label, `(batch,)`.

    Args:
        output: What the model put out.
        labels: Class numbers `(batch,)`, or class probabilities `(batch, classes)` as from mixup: then the mean of the
            logits, weighted by them.

    Raises:
        CapabilityError: The output holds no class logits.
        BadCallError: The labels do not fit the logits.
    """
    logits = logits_of(output)
    labels = labels.to(logits.device)
    if labels.is_floating_point() and labels.shape == logits.shape:
        return (logits * labels.to(logits.dtype)).sum(1)
    if labels.is_floating_point() or labels.numel() != logits.shape[0]:
        raise BadCallError(
            f"Expected labels of shape ({logits.shape[0]},) with class numbers, but got {labels.dtype} of shape "
            f"{tuple(labels.shape)}. {_OWN_TARGET}"
        )
    labels = labels.reshape(-1).long()
    if bool(((labels < 0) | (labels >= logits.shape[1])).any()):
        raise BadCallError(
            f"Expected labels from 0 to {logits.shape[1] - 1}, but got {int(labels.min())} to {int(labels.max())}."
        )
    return logits.gather(1, labels[:, None])[:, 0]


def label_log_likelihoods(output: Any, labels: Tensor) -> Tensor:
    """Return the log-probability of each sample's true label by the softmax of the logits, `(batch,)`.

    Args:
        output: What the model put out.
        labels: As in `label_scores`; for class probabilities, the mean of the log-probabilities weighted by them.

    Raises:
        CapabilityError: The output holds no class logits.
        BadCallError: The labels do not fit the logits.
    """
    return label_scores(torch.log_softmax(logits_of(output), 1), labels)


def check_scores(scores: Any, size: int) -> Tensor:
    """Return the scores of a target function after a check that they are one number a sample.

    Raises:
        BadCallError: They are not.
    """
    if isinstance(scores, Tensor) and scores.shape == (size,) and scores.is_floating_point():
        return scores
    got = f"{scores.dtype} of shape {tuple(scores.shape)}" if isinstance(scores, Tensor) else type(scores).__name__
    raise BadCallError(f"Expected the target function to return one number a sample, shape ({size},), but got {got}.")


def placeholder_score(output: Any) -> Tensor:
    """Return the first logit of each sample, for a trial run without labels.

    Raises:
        CapabilityError: The output holds no class logits.
    """
    score: Tensor = logits_of(output)[:, 0]
    return score
