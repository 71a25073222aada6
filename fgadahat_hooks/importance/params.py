"""Check the parameters of a measure, all at once."""

from __future__ import annotations

import math
from types import TracebackType
from typing import Any, TypeVar

from torch import Tensor

from fgadahat_hooks.errors import BadCallError

T = TypeVar("T")


class ParamChecker:
    """Collects the problems of a measure's parameters and reports all of them at the end of the block."""

    def __init__(self, measure: str) -> None:
        """Take the measure's name, for the message."""
        self._measure = measure
        self._problems: list[str] = []

    def __enter__(self) -> ParamChecker:
        """Return the checker."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        """Raise if there are problems.

        Raises:
            BadCallError: Lists every problem.
        """
        if kind is None and self._problems:
            raise BadCallError(f"Measure '{self._measure}': " + "; ".join(self._problems) + ".")

    def _expect(self, fine: bool, name: str, expected: str, value: object) -> None:
        if not fine:
            got = f"shape {tuple(value.shape)}" if isinstance(value, Tensor) else repr(value)
            self._problems.append(f"expected `{name}` to be {expected}, but got {got}")

    def choice(self, name: str, value: T, options: tuple[str, ...]) -> T:
        """Return a value that must be one of the options."""
        self._expect(value in options, name, "one of " + ", ".join(map(repr, options)), value)
        return value

    def count(self, name: str, value: int, least: int = 1) -> int:
        """Return a whole number that must not be below `least`."""
        fine = isinstance(value, int) and not isinstance(value, bool) and value >= least
        self._expect(fine, name, f"a whole number >= {least}", value)
        return value

    def number(self, name: str, value: float, above: float = -math.inf) -> float:
        """Return a finite number that must lie above a bound."""
        fine = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        bound = "" if above == -math.inf else f" > {above:g}"
        self._expect(fine and value > above, name, f"a finite number{bound}", value)
        return value

    def share(self, name: str, value: float) -> float:
        """Return a number that must lie between 0 and 1, both excluded."""
        fine = isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < 1
        self._expect(fine, name, "a number between 0 and 1", value)
        return value

    def baseline(self, name: str, value: Any) -> float | Tensor:
        """Return what must be a finite number or a tensor of finite numbers."""
        if isinstance(value, Tensor):
            self._expect(bool(value.isfinite().all()), name, "a tensor of finite numbers", value)
            return value
        return self.number(name, value)

    def rows(self, name: str, value: Any) -> Tensor:
        """Return what must be a tensor of finite numbers with one row or more."""
        fine = isinstance(value, Tensor) and value.dim() > 0 and len(value) > 0 and bool(value.isfinite().all())
        self._expect(fine, name, "a tensor (baselines, *sample) of finite numbers", value)
        return value  # type: ignore[no-any-return]  # anything else is refused at the end of the block
