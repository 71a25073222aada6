"""One model of the catalogue: how it is built, what it takes, and which of its outputs count."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from fgadahat_hooks.graph.tracing.forward import ExampleInputs, output_tensors

CLASSES = 4
WORDS = 50
"""Size of the vocabulary of language models."""

Inputs = Callable[[int, int], ExampleInputs]
"""Gives the inputs of a number of samples, drawn with a seed."""


@dataclass(frozen=True)
class Subject:
    """A model and all that is needed to train it.

    Attributes:
        name: Its name in the table.
        family: The part of the table it stands in.
        make: Builds it with random weights.
        inputs: Gives inputs.
        spec: What has to be said beside the default spec.
        note: Why, or what is special; shown in the table.
        batch: Samples a training step.
        steps: Training steps a task.
        rank: Models are examined in this order; the largest last.
    """

    name: str
    family: str
    make: Callable[[], nn.Module]
    inputs: Inputs
    spec: Mapping[str, Any] = field(default_factory=dict)
    note: str = ""
    batch: int = 4
    steps: int = 2
    rank: float = 0.0


def images(size: int, channels: int = 3) -> Inputs:
    """Return a source of `(count, channels, size, size)` standard normal images."""
    return normal(channels, size, size)


def normal(*shape: int) -> Inputs:
    """Return a source of standard normal samples of a shape."""
    return lambda count, seed: torch.randn(count, *shape, generator=torch.Generator().manual_seed(seed))


def words(length: int = 6, **more: Any) -> Inputs:
    """Return a source of token ids as the keyword `input_ids`, with further keywords beside it."""

    def draw(count: int, seed: int) -> ExampleInputs:
        ids = torch.randint(3, WORDS, (count, length), generator=torch.Generator().manual_seed(seed))
        return {"input_ids": ids, **more}

    return draw


def answers(output: Any) -> list[Tensor]:
    """Return the logits of whatever a model puts out: the field of that name, or every floating-point tensor."""
    logits = getattr(output, "logits", None)
    return [logits] if isinstance(logits, Tensor) and not isinstance(output, tuple) else output_tensors(output)
