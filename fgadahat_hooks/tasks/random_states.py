"""Where all random numbers stand, as plain data, and the epoch that is being drawn."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor


def random_state() -> dict[str, Any]:
    """Return the states of torch (CPU and CUDA), of Python's `random` and of numpy's global generator."""
    version, key, gauss = random.getstate()
    name, words, *rest = np.random.get_state()
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() and torch.cuda.is_initialized() else [],
        "python": {"version": version, "key": _as_tensor(key), "gauss": gauss},
        "numpy": {"name": name, "key": _as_tensor(words), "rest": rest},
    }


def set_random_state(state: Mapping[str, Any]) -> None:
    """Put back what `random_state` returned; states of devices that are not there are left out."""
    torch.set_rng_state(state["torch"])
    for device, value in enumerate(state["cuda"][: torch.cuda.device_count()]):
        torch.cuda.set_rng_state(value, device)
    python, other = state["python"], state["numpy"]
    random.setstate((python["version"], tuple(_as_words(python["key"]).tolist()), python["gauss"]))
    np.random.set_state((other["name"], _as_words(other["key"]), *other["rest"]))


def _as_tensor(words: Any) -> Tensor:
    """Return words of 32 bits as a tensor; torch has hardly any use for unsigned ones, so they look signed."""
    return torch.from_numpy(np.array(words, dtype=np.uint32).view(np.int32))


def _as_words(tensor: Tensor) -> Any:
    return tensor.numpy().view(np.uint32)


class EpochDraws:
    """Lets an epoch be drawn again as it was drawn before an interruption.

    Attributes:
        state: Where random numbers stood when the newest epoch's loader began; None before the first.
    """

    def __init__(self) -> None:
        """Begin without an epoch."""
        self.state: dict[str, Any] | None = None

    def follow(self, loader: Iterable[Any], start: int, num_batches: int | None) -> Iterable[Any]:
        """Return a loader of the same batches, and of the same length if it has one.

        Args:
            loader: The loader of an epoch.
            start: How many batches are drawn only to be left out; random numbers then go on where they stood.
            num_batches: Number of batches, where the loader has no length.
        """
        try:
            length = len(loader)  # type: ignore[arg-type]  # not every loader has a length
        except TypeError:
            length = num_batches  # type: ignore[assignment]  # None means that there is none
        return loader if length is None else _Followed(self, loader, start, length)


class _Followed:
    """A loader whose beginning is remembered, or repeated."""

    def __init__(self, draws: EpochDraws, loader: Iterable[Any], start: int, length: int) -> None:
        self._draws = draws
        self._loader = loader
        self._start = start
        self._length = length

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[Any]:
        now = None
        if self._start and self._draws.state is not None:
            now = random_state()
            set_random_state(self._draws.state)
        else:
            self._draws.state = random_state()
        batches = iter(self._loader)
        for _, batch in zip(range(self._start), batches, strict=False):
            yield batch
        if now is not None:
            set_random_state(now)
        yield from batches
