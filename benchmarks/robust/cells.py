"""The cells of the grid: kind, start, optimizer, learning rate, epochs, seed; and the specs that learn in a row."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import product
from typing import Any, NamedTuple

TASKS = 5
RATES = {"adamw": (1e-4, 1e-3, 5e-3), "sgd": (1e-2, 1e-1)}
EPOCHS = (1, 3)

LEARNT: Mapping[str, Any] = {
    "gates": {"s_max": 400.0, "annealing_power": 2.0},
    "regularization": {"factor": 1.5, "budget": 1 / TASKS},
    "adjustment": {"mode": "hat"},
}
SHARE: Mapping[str, Any] = {
    "gates": {"choose": "share", "tasks": TASKS, "gains": "without_norms"},
    "regularization": {"factor": 0.0},
    "plasticity": {"rescale": True, "learning_rates": "by_share"},
    "rest": "per_task",
    "adjustment": {"mode": "hat"},
}
"""What `fgadahat_hooks.preset("hat", tasks=5)` is."""
OPEN: Mapping[str, Any] = {**SHARE, "rest": "freeze", "gates": {**SHARE["gates"], "targets": ["all", "all-embedding"]}}
FROZEN: Mapping[str, Any] = {**SHARE, "rest": "freeze"}
UNSCALED: Mapping[str, Any] = {**SHARE, "plasticity": {**SHARE["plasticity"], "rescale": False}}

MAIN = {"learnt masks": LEARNT, "by share": SHARE}
"""What every cell learns with."""
VARIANTS = {"by share, rest frozen": FROZEN, "by share, embeddings gated": OPEN, "by share, not rescaled": UNSCALED}
"""What models with embeddings or positions outside the gates, or with pretrained weights, learn with, too."""
SPECS = MAIN | VARIANTS

AGAIN = "alone, another seed"
"""The same as alone, with other weights and batches: how much of a gap, and of the tasks at chance, is luck. Only tasks
that the first run alone has learnt are counted, and a second one does not learn all of them."""

TINY = ("mlp, digits", "mlp, permuted digits", "cnn, digits", "cnn+bn, digits", "depthwise, digits")
SMALL = ("mlp, permuted fashion", "cnn, fashion", "cnn+bn, fashion")
SGD_KINDS = ("mlp, digits", "mlp, permuted digits", "cnn, digits", "cnn+bn, digits", *SMALL)
REPEATED = (*TINY, *SMALL, "vit, digits", "bert, text")
"""Kinds that learn alone twice; the others take long."""
START_KINDS = ("cnn, digits", "cnn+bn, digits", "vit, digits")


class Cell(NamedTuple):
    """What a run is made of, less its spec."""

    kind: str
    start: str
    optimizer: str
    lr: float
    epochs: int
    seed: int

    def title(self) -> str:
        """Return its name, for files."""
        return " ".join(str(part) for part in self)

    def specs(self) -> tuple[str, ...]:
        """Return the names of the specs that learn in it."""
        always = (*MAIN, AGAIN) if self.kind in REPEATED else tuple(MAIN)
        if self.start != "fresh":
            return (*always, "by share, not rescaled")
        if self.kind.startswith("bert"):
            return (*always, "by share, rest frozen", "by share, embeddings gated")
        return (*always, "by share, rest frozen") if self.kind.startswith("vit") else always

    def keeps_optimizer(self) -> bool:
        """Return whether one optimizer serves all tasks: SGD, and AdamW with an odd seed."""
        return self.optimizer == "sgd" or self.seed % 2 == 1


def cells(first: int) -> Iterator[Cell]:
    """Give all cells, the cheap ones first.

    Args:
        first: The first of four seeds; small models get all of them, others fewer.
    """
    few, one, other = range(first, first + 2), [first], [first + 1]
    yield from _group(TINY, range(first, first + 4))
    yield from _group(SMALL, few)
    yield from _group(SGD_KINDS, few, optimizer="sgd")
    yield from _group(START_KINDS, few, start="pretrained")
    yield from _group(["vit, digits", "bert, text"], few)
    yield from _group(["vit, fashion"], one)
    yield from _group(["cnn, fashion", "cnn+bn, fashion"], other, start="pretrained")
    for kind, seeds in (("depthwise, fashion", one), ("mobilenet-v3, digits", other), ("resnet-18, digits", one)):
        yield from _group([kind], seeds, epochs=(1,))
        yield Cell(kind, "fresh", "adamw", 1e-3, 3, seeds[0])
    for kind, seeds in (("mobilenet-v3, fashion", other), ("resnet-18, fashion", one)):
        yield Cell(kind, "fresh", "adamw", 1e-3, 1, seeds[0])


def _group(
    kinds: Iterable[str],
    seeds: Iterable[int],
    start: str = "fresh",
    optimizer: str = "adamw",
    epochs: tuple[int, ...] = EPOCHS,
) -> Iterator[Cell]:
    for kind, seed, count, lr in product(kinds, seeds, epochs, RATES[optimizer]):
        yield Cell(kind, start, optimizer, lr, count, seed)
