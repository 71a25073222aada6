"""Tasks of text: which of two packages of Python's own library a chunk of source code comes from."""

from __future__ import annotations

import re
import sysconfig
from collections import Counter
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.robust.data import Data

PAIRS = (
    ("asyncio", "email"),
    ("unittest", "multiprocessing"),
    ("http", "xml"),
    ("importlib", "logging"),
    ("urllib", "xmlrpc"),
)
VOCABULARY, LENGTH = 2000, 32
PER_CLASS, JUDGED = 400, 80
"""Chunks of a package that a task trains on, and that it is judged by."""


@cache
def words(package: str) -> list[str]:
    """Return the words, digits and signs of a package's source, its own name left out."""
    folder = Path(sysconfig.get_paths()["stdlib"]) / package
    files = [file for file in sorted(folder.rglob("*.py")) if "test" not in str(file.relative_to(folder))]
    text = " ".join(file.read_text(encoding="utf-8", errors="ignore") for file in files)
    return [word for word in re.findall(r"[A-Za-z_]+|\d|[^\s\w]", text) if word.lower() != package]


@cache
def numbers() -> dict[str, int]:
    """Return the most frequent words of all packages, each with its number; 0 is any other word."""
    counts = Counter(word for pair in PAIRS for package in pair for word in words(package))
    return {word: 1 + place for place, (word, _) in enumerate(counts.most_common(VOCABULARY - 1))}


def chunks(package: str) -> Tensor:
    """Return chunks `(n, 32)` of a package's source, in random order."""
    table = numbers()
    tokens = torch.tensor([table.get(word, 0) for word in words(package)])
    found = tokens[: len(tokens) // LENGTH * LENGTH].view(-1, LENGTH)
    return found[torch.randperm(len(found), generator=torch.Generator().manual_seed(0))]


@cache
def packages(number: int) -> Data:
    """Return chunks of two packages, shuffled."""
    found = [chunks(package) for package in PAIRS[number]]
    x = torch.cat([part[:PER_CLASS] for part in found])
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(number))
    x_test = torch.cat([part[PER_CLASS : PER_CLASS + JUDGED] for part in found])
    y = torch.arange(2).repeat_interleave(PER_CLASS)
    return Data(x[order], y[order], x_test, torch.arange(2).repeat_interleave(JUDGED))
