"""How long a task is, how far it has come, and the gate scale that belongs there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from fgadahat_hooks.errors import BadCallError
from fgadahat_hooks.functional.mask import anneal
from fgadahat_hooks.spec.attach_spec import GatesSpec


@dataclass
class TaskLength:
    """The length of a task, in epochs or in optimizer steps, and its place in it.

    Attributes:
        epochs: Number of epochs, None if not known.
        steps: Number of optimizer steps, None if not known.
        epoch: Number of the current epoch, counted from 1; 0 before the first batch.
        batch: Number of the current batch in it, counted from 1.
        resumed: Whether the task was resumed and no batch has begun since: the one that was interrupted may come again.
    """

    epochs: int | None = None
    steps: int | None = None
    epoch: int = 0
    batch: int = 0
    resumed: bool = False

    def __post_init__(self) -> None:
        """Check the numbers.

        Raises:
            BadCallError: Both are given, or one is not a whole number above 0.
        """
        if self.epochs is not None and self.steps is not None:
            raise BadCallError(
                f"Expected `epochs` or `steps`, but got both: {self.epochs!r} and {self.steps!r}. Pass the one that "
                "the loop is written in."
            )
        for name, value in (("epochs", self.epochs), ("steps", self.steps)):
            if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
                raise BadCallError(f"Expected `{name}` to be a whole number of at least 1, but got {value!r}.")

    @property
    def known(self) -> bool:
        """Whether the task's length is known."""
        return self.epochs is not None or self.steps is not None

    def begin_batch(self, batch: int, num_batches: int) -> None:
        """Count a batch; one whose number is not above the last one's begins a new epoch."""
        again = self.resumed and batch == self.batch and num_batches > 1
        if self.epoch == 0 or (batch <= self.batch and not again):
            self.epoch += 1
        self.batch, self.resumed = batch, False

    def place(self, num_batches: int, steps_done: int) -> tuple[int, int]:
        """Return the place of the current batch in the task, counted from 1, and the last place."""
        if self.steps is not None:
            return min(steps_done + 1, self.steps), self.steps
        last = (self.epochs or 1) * num_batches
        return min((self.epoch - 1) * num_batches + self.batch, last), last

    def dump(self) -> dict[str, Any]:
        """Return the length and the place as plain data; empty if the length is not known."""
        names = ("epochs", "steps", "epoch", "batch")
        return {n: v for n in names if (v := getattr(self, n)) is not None} if self.known else {}


class Schedule:
    """Gate scales of a task: annealed within each epoch, or over the task with a settled phase at its end."""

    def __init__(self, spec: GatesSpec, length: TaskLength) -> None:
        """Keep both.

        Args:
            spec: The gates' choices.
            length: Length of the task.
        """
        self._spec = spec
        self.length = length

    @property
    def over_task(self) -> bool:
        """Whether annealing runs over the task; else it restarts in each epoch."""
        return self._spec.annealing == "task" and self.length.known

    def scale(self, batch: int, num_batches: int, steps_done: int) -> float:
        """Return the gate scale of a batch that begins.

        Raises:
            BadCallError: `batch` is not within 1 and `num_batches`.
        """
        spec = self._spec
        scale = anneal(batch, num_batches, spec.s_max, spec.annealing_power)
        self.length.begin_batch(batch, num_batches)
        if not self.over_task:
            return scale
        place, last = self.length.place(num_batches, steps_done)
        soft = self._soft(last)
        return anneal(min(place, soft), soft, spec.s_max, spec.annealing_power)

    def settled(self, num_batches: int, steps_done: int) -> bool:
        """Return whether the current batch is in the settled phase: its mask is fixed and hard."""
        if not self.over_task:
            return False
        place, last = self.length.place(num_batches, steps_done)
        return place > self._soft(last)

    def unfinished(self, steps_done: int) -> str:
        """Return how far the task came, if that is not to the end; else an empty string."""
        length = self.length
        if not self.over_task:
            return ""
        if length.steps is not None:
            return f"{steps_done} of {length.steps} steps" if steps_done < length.steps else ""
        return f"{length.epoch} of {length.epochs} epochs" if length.epoch < (length.epochs or 0) else ""

    def _soft(self, last: int) -> int:
        """Return the number of places, at least one, in which gates are soft."""
        return max(1, round((1 - self._spec.settle) * last))
