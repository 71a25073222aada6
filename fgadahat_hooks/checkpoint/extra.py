"""What a training loop saves beside a session: the states of optimizers and the like, and how new ones load them."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch

from fgadahat_hooks.checkpoint.problems import SHOWN
from fgadahat_hooks.errors import BadCallError, StateMismatchError


def dump_extra(extra: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the state of each object that has one; plain data is returned as it is.

    Raises:
        BadCallError: It is no mapping with names as keys.
    """
    found = _by_name(extra)
    return {name: {"object": _has_state(value), "value": _state(value)} for name, value in found.items()}


def load_extra(saved: Mapping[str, Any], extra: Mapping[str, Any] | None) -> dict[str, Any]:
    """Load each object's saved state, all or none; return what was saved as plain data.

    Raises:
        BadCallError: It is no mapping with names as keys.
        StateMismatchError: Something was not saved, or does not take its state.
    """
    targets = _by_name(extra)
    problems = list(_problems(saved, targets))
    if problems:
        raise StateMismatchError(
            "Expected what was saved under these names, but:\n  " + "\n  ".join(problems[:SHOWN]) + "\nNothing was "
            f"changed. Saved were: {', '.join(map(repr, saved)) or 'none'}."
        )
    _load_all(targets, saved)
    return plain_values(saved)


def plain_values(saved: Mapping[str, Any]) -> dict[str, Any]:
    """Return what was saved as plain data, by name; the states of objects are left out."""
    return {name: part["value"] for name, part in saved.items() if not part["object"]}


def _by_name(extra: Mapping[str, Any] | None) -> Mapping[str, Any]:
    if extra is None:
        return {}
    if not isinstance(extra, Mapping) or not all(isinstance(name, str) for name in extra):
        raise BadCallError(f'Expected extra={{"optimizer": optimizer, ...}} with str as keys, but got {extra!r:.80}.')
    return extra


def _problems(saved: Mapping[str, Any], targets: Mapping[str, Any]) -> Iterator[str]:
    """Yield why targets cannot take what was saved under their names."""
    plain = plain_values(saved)
    yield from (f"'{name}' was not saved" for name in targets if name not in saved)
    yield from (f"'{name}' was saved as plain data, and is returned" for name in targets if name in plain)
    objects = {name: target for name, target in targets.items() if name in saved and name not in plain}
    yield from (f"'{name}' has no load_state_dict" for name, target in objects.items() if not _has_state(target))


def _load_all(targets: Mapping[str, Any], saved: Mapping[str, Any]) -> None:
    """Load the saved states one after another; if a target raises, restore those before it and the target itself.

    Raises:
        StateMismatchError: A target raised.
    """
    undo: list[Callable[[], None]] = []
    for name, target in targets.items():
        undo.append(_undo(target))
        try:
            _load(target, saved[name]["value"])
        except Exception as error:
            for restore in reversed(undo):
                restore()
            raise StateMismatchError(
                f"Expected '{name}' ({type(target).__name__}) to take its saved state, but it raised "
                f"{type(error).__name__}: {error}. Nothing was changed. Build it as it was when it was saved."
            ) from error


# ------------------------------------------------------------------ one object
def _has_state(value: Any) -> bool:
    if isinstance(value, torch.Generator):
        return True
    return callable(getattr(value, "state_dict", None)) and callable(getattr(value, "load_state_dict", None))


def _state(value: Any) -> Any:
    if isinstance(value, torch.Generator):
        return value.get_state()
    return value.state_dict() if _has_state(value) else value


def _load(target: Any, state: Any) -> None:
    if isinstance(target, torch.Generator):
        target.set_state(state)
    else:
        target.load_state_dict(state)


def _undo(target: Any) -> Callable[[], None]:
    """Return a function that loads the state that a target has now."""
    before = copy.deepcopy(_state(target))
    return lambda: _load(target, before)
