"""The streams of tasks: which images, in which order, and which network learns them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from examples.reproduce import nets
from examples.reproduce.data import digits, fashion_mnist
from examples.reproduce.recipe import Recipe


@dataclass(frozen=True)
class Stream:
    """One stream.

    Attributes:
        name: Its letter.
        title: What it is, in words.
        tasks: Number of tasks.
        classes: Outputs of each task's head.
        images: Training images a task; None for all there are.
        epochs: Epochs a task.
        batch: Batch size.
        net: Makes the network, at a part of its width and with or without norms where it can do that.
        split: Classes are split over the tasks; else each task sees all of them under a permutation of the pixels.
        flat: Images are flattened.
        judged: Test images a task is judged on, drawn by the seed; None for all there are.
    """

    name: str
    title: str
    tasks: int
    classes: int
    images: int | None
    epochs: int
    batch: int
    net: Callable[..., nn.Module]
    split: bool = False
    flat: bool = True
    judged: int | None = None

    def network(self, recipe: Recipe) -> nn.Module:
        """Return a fresh network in the shape that a recipe asks for."""
        shape: dict[str, Any] = {} if recipe.width == 1 else {"width": recipe.width}
        return self.net(**shape, **({"norm": True} if recipe.norm else {}))


STREAMS = {
    s.name: s
    for s in (
        Stream("S", "permuted digits", 20, 10, None, 15, 64, partial(nets.mlp, 64, 64, 32, 10)),
        Stream(
            "A", "permuted Fashion-MNIST", 10, 10, 12_000, 1, 128, partial(nets.mlp, 784, 256, 256, 10), judged=4_000
        ),
        Stream(
            "B", "permuted Fashion-MNIST", 20, 10, 12_000, 1, 128, partial(nets.mlp, 784, 256, 256, 10), judged=2_000
        ),
        Stream("C", "split Fashion-MNIST, CNN", 5, 2, 4_000, 2, 128, partial(nets.cnn, 2), split=True, flat=False),
        Stream("D", "split Fashion-MNIST, ResNet-18", 5, 2, 2_000, 1, 64, partial(nets.ThreeChannels, 2), True, False),
    )
}


class Batches:
    """Shuffled batches of one task; the order of an epoch depends on the seed and the epoch alone."""

    def __init__(self, x: Tensor, y: Tensor, size: int, seed: int) -> None:
        """Take images and labels."""
        self._x, self._y, self._size = x, y, size
        self._generator = torch.Generator().manual_seed(seed)

    def __len__(self) -> int:
        """Return the number of batches of an epoch."""
        return -(-len(self._y) // self._size)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Go over one epoch."""
        for rows in torch.randperm(len(self._y), generator=self._generator).split(self._size):
            yield self._x[rows], self._y[rows]


class Tasks:
    """The tasks of a stream for one seed, counted from 0.

    A permuted stream shows the same images in each task, task 0 unpermuted. With `validate` the last tenth of each
    task's training images is held out and judged on, and the test images are never looked at.
    """

    def __init__(self, stream: Stream, seed: int, *, validate: bool, folder: Path | None) -> None:
        """Draw images and permutations; `folder` holds Fashion-MNIST, and is not needed for digits."""
        self.stream, self.seed, self._validate = stream, seed, validate
        self._data = digits() if folder is None else fashion_mnist(folder)
        draw = torch.Generator().manual_seed(1000 + seed)
        order = torch.randperm(len(self._data.train_y), generator=draw)
        self._rows = order if stream.split else order[: stream.images]
        self._judged_rows = torch.randperm(len(self._data.test_y), generator=draw)[: stream.judged]
        pixels = self._data.train_x[0].numel()
        self._orders = [torch.arange(pixels)]
        self._orders += [torch.randperm(pixels, generator=draw) for _ in range(stream.tasks - 1)]
        self._judged: dict[int, tuple[Tensor, Tensor]] = {}

    def __len__(self) -> int:
        """Return the number of tasks."""
        return self.stream.tasks

    def training(self, task: int) -> Batches:
        """Return the loader of a task; its order is the same for every method."""
        x, y = self._training(task)
        kept = len(y) - len(y) // 10 if self._validate else len(y)
        return Batches(x[:kept], y[:kept], self.stream.batch, self.seed * 1000 + task)

    def judging(self, task: int) -> tuple[Tensor, Tensor]:
        """Return the images and labels that a task is judged on; made once, they are asked for after every task."""
        if task not in self._judged:
            self._judged[task] = self._held_out(task) if self._validate else self._test(task)
        return self._judged[task]

    def _training(self, task: int) -> tuple[Tensor, Tensor]:
        data = self._data
        return self._chosen(task, data.train_x[self._rows], data.train_y[self._rows], self.stream.images)

    def _held_out(self, task: int) -> tuple[Tensor, Tensor]:
        x, y = self._training(task)
        kept = len(y) - len(y) // 10
        return x[kept:], y[kept:]

    def _test(self, task: int) -> tuple[Tensor, Tensor]:
        data = self._data
        return self._chosen(task, data.test_x[self._judged_rows], data.test_y[self._judged_rows], None)

    def _chosen(self, task: int, x: Tensor, y: Tensor, limit: int | None) -> tuple[Tensor, Tensor]:
        if self.stream.split:
            first = task * self.stream.classes
            rows = ((y >= first) & (y < first + self.stream.classes)).nonzero().flatten()[:limit]
            return x[rows], y[rows] - first
        return x.flatten(1)[:, self._orders[task]], y

    def example(self) -> Tensor:
        """Return inputs to trace the network with."""
        x = self._data.train_x[:2]
        return x.flatten(1) if self.stream.flat else x
