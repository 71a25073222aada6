"""Tasks of images: scikit-learn's digits and Fashion-MNIST, split into pairs of classes or with permuted pixels."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from typing import NamedTuple

import torch
from sklearn.datasets import load_digits
from torch import Tensor
from torch.nn import functional as F

from examples.reproduce.data import DataMissingError, fashion_mnist, find_fashion_mnist

PER_TASK, JUDGED = 1500, 1000
"""Images of Fashion-MNIST that a task trains on, and that it is judged by."""


class Data(NamedTuple):
    """Samples of one task: those to train on, and those to judge by."""

    x: Tensor
    y: Tensor
    x_test: Tensor
    y_test: Tensor

    def held_out(self) -> Data:
        """Return the training samples alone, a fifth of them to judge by: for choices of method."""
        cut = len(self.y) * 4 // 5
        return Data(self.x[:cut], self.y[:cut], self.x[cut:], self.y[cut:])


Task = Callable[[int], Data]
"""Gives the data of a task by its number."""


def has_fashion() -> bool:
    """Return whether Fashion-MNIST is on this machine."""
    try:
        find_fashion_mnist(None)
    except DataMissingError:
        return False
    return True


@cache
def digits(size: int = 8) -> tuple[Tensor, Tensor]:
    """Return images `(n, 1, size, size)` in [-1, 1], and labels."""
    found = load_digits()
    images = torch.tensor(found.images, dtype=torch.float32)[:, None] / 8 - 1
    return _resized(images, size), torch.tensor(found.target)


@cache
def fashion(size: int = 28) -> Data:
    """Return Fashion-MNIST, standardised, at a size."""
    found = fashion_mnist(find_fashion_mnist(None))
    return Data(_resized(found.train_x, size), found.train_y, _resized(found.test_x, size), found.test_y)


def _resized(images: Tensor, size: int) -> Tensor:
    if images.shape[-1] == size:
        return images
    return F.interpolate(images, size=(size, size), mode="bilinear", antialias=size < images.shape[-1])


def digit_pairs(size: int = 8, channels: int = 1) -> Task:
    """Return tasks of two classes of digits each, some 270 images to train on."""
    return cache(partial(_digit_pair, size, channels))


def _digit_pair(size: int, channels: int, number: int) -> Data:
    images, labels = digits(size)
    rows = ((labels == 2 * number) | (labels == 2 * number + 1)).nonzero().flatten()
    rows = rows[torch.randperm(len(rows), generator=torch.Generator().manual_seed(number))]
    x, y = images[rows].repeat(1, channels, 1, 1), labels[rows] - 2 * number
    return Data(x[:270], y[:270], x[270:], y[270:])


@cache
def permuted_digits(number: int) -> Data:
    """Return all digits with their pixels in another order."""
    images, labels = digits()
    rows = torch.randperm(len(labels), generator=torch.Generator().manual_seed(99))
    pixels = torch.randperm(64, generator=torch.Generator().manual_seed(number))
    x, y = images.flatten(1)[rows][:, pixels], labels[rows]
    return Data(x[:1200], y[:1200], x[1200:], y[1200:])


def fashion_pairs(size: int, channels: int = 1) -> Task:
    """Return tasks of two classes of Fashion-MNIST each."""
    return cache(partial(_fashion_pair, size, channels))


def _fashion_pair(size: int, channels: int, number: int) -> Data:
    parts: list[Tensor] = []
    every = fashion(size)
    for x, y, count in ((every.x, every.y, PER_TASK), (every.x_test, every.y_test, JUDGED)):
        rows = ((y == 2 * number) | (y == 2 * number + 1)).nonzero().flatten()
        rows = rows[torch.randperm(len(rows), generator=torch.Generator().manual_seed(number))[:count]]
        parts += [x[rows].repeat(1, channels, 1, 1), y[rows] - 2 * number]
    return Data(*parts)


@cache
def permuted_fashion(number: int) -> Data:
    """Return Fashion-MNIST with its pixels in another order, other training images for each task."""
    every = fashion()
    pixels = torch.randperm(784, generator=torch.Generator().manual_seed(number))
    rows = torch.randperm(len(every.y), generator=torch.Generator().manual_seed(99))
    rows, judged = rows[number * PER_TASK : (number + 1) * PER_TASK], slice(JUDGED)
    x, x_test = every.x[rows].flatten(1)[:, pixels], every.x_test[judged].flatten(1)[:, pixels]
    return Data(x, every.y[rows], x_test, every.y_test[judged])


@cache
def turned_digits(size: int = 8) -> Data:
    """Return all ten digits turned by 90 degrees, for pretrained starts."""
    images, labels = digits(size)
    turned = images.rot90(1, (2, 3))
    return Data(turned, labels, turned, labels)


@cache
def turned_fashion(size: int) -> Data:
    """Return images of all ten classes of Fashion-MNIST turned by 90 degrees, for pretrained starts."""
    every = fashion(size)
    turned = every.x[-3000:].rot90(1, (2, 3))
    return Data(turned, every.y[-3000:], turned, every.y[-3000:])
