"""Optimizers and the like beside a session: what they hold, and the way back into new ones."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

import torch

from fgadahat_hooks.errors import BadCallError, StateMismatchError

_SHOWN = 10


def dump_extra(extra: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the state of each thing that has one, and what is plain data as it is.

    Raises:
        BadCallError: It is no mapping with names as keys.
    """
    found = _named(extra)
    return {name: {"object": _has_state(value), "value": _state(value)} for name, value in found.items()}


def _named(extra: Mapping[str, Any] | None) -> Mapping[str, Any]:
    if extra is None:
        return {}
    if not isinstance(extra, Mapping) or not all(isinstance(name, str) for name in extra):
        raise BadCallError(f'Expected extra={{"optimizer": optimizer, ...}} with str as keys, but got {extra!r:.80}.')
    return extra


def _has_state(value: Any) -> bool:
    if isinstance(value, torch.Generator):
        return True
    return callable(getattr(value, "state_dict", None)) and callable(getattr(value, "load_state_dict", None))


def _state(value: Any) -> Any:
    if isinstance(value, torch.Generator):
        return value.get_state()
    return value.state_dict() if _has_state(value) else value


def load_extra(saved: Mapping[str, Any], extra: Mapping[str, Any] | None) -> dict[str, Any]:
    """Give each thing its saved state back, all or none; return what was saved as plain data.

    Raises:
        BadCallError: It is no mapping with names as keys.
        StateMismatchError: Something was not saved, or does not take its state.
    """
    targets = _named(extra)
    wrong = [f"'{name}' was not saved" for name in targets if name not in saved]
    objects = {name for name, part in saved.items() if part["object"]}
    stateless = [name for name in targets if name in objects and not _has_state(targets[name])]
    wrong += [f"'{name}' was saved as plain data, and is returned" for name in targets if name in set(saved) - objects]
    wrong += [f"'{name}' has no load_state_dict" for name in stateless]
    if wrong:
        raise StateMismatchError(
            "Expected what was saved under these names, but:\n  " + "\n  ".join(wrong[:_SHOWN]) + "\nNothing was "
            f"changed. Saved were: {', '.join(map(repr, saved)) or 'none'}."
        )
    undo: list[Callable[[], None]] = []
    for name, target in targets.items():
        undo.append(_back(target))
        try:
            _put(target, saved[name]["value"])
        except Exception as error:
            for step in reversed(undo):
                step()
            raise StateMismatchError(
                f"Expected '{name}' ({type(target).__name__}) to take its saved state, but it raised "
                f"{type(error).__name__}: {error}. Nothing was changed. Build it as it was when it was saved."
            ) from error
    return {name: part["value"] for name, part in saved.items() if not part["object"]}


def _put(target: Any, value: Any) -> None:
    if isinstance(target, torch.Generator):
        target.set_state(value)
    else:
        target.load_state_dict(value)


def _back(target: Any) -> Callable[[], None]:
    before = copy.deepcopy(_state(target))
    return lambda: _put(target, before)
