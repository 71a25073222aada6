"""Registries of what a spec may name, and suggestions for names that are not registered."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from difflib import get_close_matches
from typing import Any, Generic, TypeVar, cast

from fgadahat_hooks.errors import BadCallError, DuplicateNameError, UnknownNameError

T = TypeVar("T")
S = TypeVar("S")

# Smallest share of common letters for a suggestion (difflib's own default).
_CLOSE = 0.6
# Shorter words are part of too many names.
_SHORTEST_PART = 3


def _normalised(name: str) -> str:
    """Remove what people mix up in names: case, hyphen, space."""
    return name.casefold().replace("-", "_").replace(" ", "_")


def nearest(word: object, options: Iterable[str], n: int = 1) -> list[str]:
    """Return up to `n` options that look like `word`, the nearest first; none if `word` is not a string.

    Args:
        word: What was written.
        options: What could have been written.
        n: How many to return at most.
    """
    if not isinstance(word, str):
        return []
    by_key = {_normalised(option): option for option in options}
    close = get_close_matches(_normalised(word), by_key, n=n, cutoff=_CLOSE)
    if not close and len(word) >= _SHORTEST_PART:
        close = [key for key in by_key if _normalised(word) in key][:n]
    return [by_key[key] for key in close]


def suggest(word: object, options: Iterable[str]) -> str:
    """Return `" Did you mean 'x'?"` for the option nearest to `word`, or `""` if none is near."""
    close = nearest(word, options)
    return f" Did you mean {close[0]!r}?" if close else ""


class Registry(Generic[T]):
    """A table from names to objects of one kind.

    Example:
        >>> colours: Registry[int] = Registry("colour")
        >>> _ = colours.register("red")(0xFF0000)
        >>> colours.names()
        ('red',)
    """

    def __init__(self, kind: str) -> None:
        """Start an empty table.

        Args:
            kind: What one entry is, in the singular; used in error messages.
        """
        self.kind = kind
        self._items: dict[str, T] = {}

    def register(self, name: str, *, force: bool = False) -> Callable[[S], S]:
        """Return a decorator that registers its argument under `name` and returns it unchanged.

        Args:
            name: The name a spec uses.
            force: Replace an entry with that name instead of raising.

        Raises:
            BadCallError: `name` is not a string, is empty, or has spaces around it.
            DuplicateNameError: The name is taken and `force` is false.
        """
        if not isinstance(name, str) or not name or name != name.strip():
            raise BadCallError(
                f"Expected the name of a {self.kind} as text without spaces around it, got {name!r}. "
                f'Write e.g. @register("my_{self.kind.replace(" ", "_")}"), with the brackets.'
            )

        def add(item: S) -> S:
            if name in self._items and not force:
                raise DuplicateNameError(
                    f"Expected a new name for a {self.kind}, got {name!r}, which is taken by {self._items[name]!r}. "
                    "Choose another name, or pass force=True to replace that one."
                )
            self._items[name] = cast("T", item)
            return item

        return add

    def get(self, name: str) -> T:
        """Return the entry with that name.

        Raises:
            UnknownNameError: There is none; the message lists the nearest name and all names.
        """
        if isinstance(name, str) and name in self._items:
            return self._items[name]
        raise UnknownNameError(f"Expected the name of a {self.kind}, got {name!r}.{self.hint(name)}")

    def hint(self, name: object) -> str:
        """Return what to write instead of `name`: the nearest name, if any, and the list of all."""
        known = f"Registered: {', '.join(self.names())}." if self._items else f"No {self.kind} is registered."
        return f"{suggest(name, self._items)} {known}"

    def names(self) -> tuple[str, ...]:
        """Return all names, sorted."""
        return tuple(sorted(self._items))

    def __contains__(self, name: object) -> bool:
        """Return whether an entry with that name exists."""
        return isinstance(name, str) and name in self._items

    def __iter__(self) -> Iterator[str]:
        """Iterate over the names, sorted."""
        return iter(self.names())

    def __len__(self) -> int:
        """Return the number of entries."""
        return len(self._items)

    def __repr__(self) -> str:
        """Show the kind and all names."""
        return f"<Registry of {self.kind}: {', '.join(self.names()) or 'empty'}>"


measures: Registry[type[Any]] = Registry("measure")
"""Importance measures: classes, by the name that `importance.type` uses."""

strategies: Registry[Callable[..., Any]] = Registry("strategy")
"""Sums of importance over tasks: functions, by the name that `summation.strategy` uses."""

schedulers: Registry[Callable[..., Any]] = Registry("scheduler")
"""Importance schedulers of FG-AdaHAT: functions, by the name that `adjustment.scheduler` uses."""

aggregations: Registry[Callable[..., Any]] = Registry("aggregation")
"""Unit-to-weight aggregations: functions, by the name that `adjustment.aggregation` uses."""

layer_types: Registry[Any] = Registry("layer type")
"""Handlers of gateable layers, by the name of the module class."""
