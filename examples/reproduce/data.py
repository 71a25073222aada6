"""The two data sets: Fashion-MNIST from its four files, and scikit-learn's digits."""

from __future__ import annotations

import gzip
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

DEBIAN = Path("/usr/share/datasets/fashion-mnist")
"""Where Debian's and Ubuntu's package `dataset-fashion-mnist` puts the files."""

PREFIXES = {"train": "train", "test": "t10k"}


@dataclass(frozen=True)
class Data:
    """Images and labels of both splits.

    Attributes:
        train_x: `(n, ...)` float32, standardised with one mean and one deviation over all training pixels.
        train_y: `(n,)` long.
        test_x: `(m, ...)`.
        test_y: `(m,)`.
    """

    train_x: Tensor
    train_y: Tensor
    test_x: Tensor
    test_y: Tensor


class DataMissingError(SystemExit):
    """Fashion-MNIST is not on this machine."""


def find_fashion_mnist(folder: Path | None) -> Path:
    """Return the folder with the four `*-ubyte.gz` files.

    Args:
        folder: Where the user says they are: the files themselves, or a root of `torchvision.datasets.FashionMNIST`.

    Raises:
        DataMissingError: They are in none of the places.
    """
    given = [] if folder is None else [folder, folder / "FashionMNIST" / "raw"]
    places = given or [DEBIAN]
    for place in places:
        if all((place / f"{prefix}-images-idx3-ubyte.gz").is_file() for prefix in PREFIXES.values()):
            return place
    looked = ", ".join(str(place) for place in places)
    raise DataMissingError(
        f"Expected Fashion-MNIST's four files (train-images-idx3-ubyte.gz, ...) in {looked}, but they are not there. "
        "Install Debian's package dataset-fashion-mnist, or name their folder with --data DIR, or let torchvision "
        "fetch them with --data DIR --download. Stream S needs no files."
    )


def download(folder: Path) -> None:
    """Let torchvision fetch the files into `folder`."""
    from torchvision.datasets import FashionMNIST

    FashionMNIST(str(folder), download=True)


def read_idx(path: Path) -> Tensor:
    """Read a gzipped file in MNIST's idx format: four bytes of type, one size a dimension, then unsigned bytes."""
    raw = gzip.decompress(path.read_bytes())
    dimensions = raw[3]
    shape = [int.from_bytes(raw[4 + 4 * i : 8 + 4 * i], "big") for i in range(dimensions)]
    values = np.frombuffer(raw, dtype=np.uint8, offset=4 + 4 * dimensions)
    return torch.from_numpy(values.reshape(shape).copy())


@cache
def fashion_mnist(folder: Path) -> Data:
    """Read Fashion-MNIST: 60,000 and 10,000 images `(1, 28, 28)` of 10 classes."""
    parts = []
    for prefix in PREFIXES.values():
        images = read_idx(folder / f"{prefix}-images-idx3-ubyte.gz").unsqueeze(1).float() / 255
        labels = read_idx(folder / f"{prefix}-labels-idx1-ubyte.gz").long()
        parts += [images, labels]
    return _standardised(*parts)


@cache
def digits() -> Data:
    """Read scikit-learn's digits: 1,400 and 397 images `(64,)` of 10 classes, split once and for all."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    order = torch.randperm(len(bunch.target), generator=torch.Generator().manual_seed(0))
    images = torch.tensor(bunch.data, dtype=torch.float32)[order]
    labels = torch.tensor(bunch.target).long()[order]
    return _standardised(images[:1400], labels[:1400], images[1400:], labels[1400:])


def _standardised(train_x: Tensor, train_y: Tensor, test_x: Tensor, test_y: Tensor) -> Data:
    mean, deviation = train_x.mean(), train_x.std()
    return Data((train_x - mean) / deviation, train_y, (test_x - mean) / deviation, test_y)
