"""Draw an epoch's batches again after an interruption, in the order of before."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from fgadahat_hooks.tasks.random_states import random_state, set_random_state


class EpochReplay:
    """Lets a resumed epoch draw the same batches as before the interruption.

    Attributes:
        state: The random state when the newest epoch's loader began; None before the first.
    """

    def __init__(self) -> None:
        """Begin without an epoch."""
        self.state: dict[str, Any] | None = None

    def wrap(self, loader: Iterable[Any], start: int, num_batches: int | None) -> Iterable[Any]:
        """Return a loader of the same batches, and of the same length if it has one.

        Args:
            loader: The loader of an epoch.
            start: How many batches are drawn only to be skipped; the current random state holds again after them.
            num_batches: Number of batches, where the loader has no length.
        """
        try:
            length = len(loader)  # type: ignore[arg-type]  # not every loader has a length
        except TypeError:
            length = num_batches  # type: ignore[assignment]  # None means that there is none
        return loader if length is None else _ReplayingLoader(self, loader, start, length)


class _ReplayingLoader:
    """A loader that records the random state it begins with, or begins with the recorded one if batches are skipped."""

    def __init__(self, replay: EpochReplay, loader: Iterable[Any], start: int, length: int) -> None:
        self._replay = replay
        self._loader = loader
        self._start = start
        self._length = length

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[Any]:
        now = None
        if self._start and self._replay.state is not None:
            now = random_state()
            set_random_state(self._replay.state)
        else:
            self._replay.state = random_state()
        batches = iter(self._loader)
        for _, batch in zip(range(self._start), batches, strict=False):
            yield batch
        if now is not None:
            set_random_state(now)
        yield from batches
