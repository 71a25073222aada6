"""A copy of an attached model without anything of this library on it."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from functools import partial
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.module import _WrappedHook

_PACKAGE = __name__.partition(".")[0]
_HOOKS = (
    "_forward_hooks _forward_pre_hooks _backward_hooks _backward_pre_hooks _state_dict_hooks _state_dict_pre_hooks "
    "_load_state_dict_pre_hooks _load_state_dict_post_hooks"
).split()
_HOOK_OPTIONS = "_forward_hooks_with_kwargs _forward_hooks_always_called _forward_pre_hooks_with_kwargs".split()


class _Left:
    """Stands in a copy where something of this library stood in the model."""


def plain_copy(model: nn.Module) -> nn.Module:
    """Copy a model without gates, hooks and attributes of this library, in evaluation mode.

    They are left out while copying, not removed after it: hooks of a running task may hold what cannot be copied.
    Everything else is copied, hooks of the user's too.
    """
    left = _Left()
    memo: dict[int, Any] = {id(value): left for value in _found(model)}
    memo |= {id(t): t.detach().clone() for t in results(model)}
    made = copy.deepcopy(model, memo)
    for module in made.modules():
        _forget(module, left)
    return made.eval()


def _found(model: nn.Module) -> Iterator[Any]:
    """Yield everything of this library's that hangs on the modules of a model."""
    for module in model.modules():
        owners = [vars(module), module._modules, *(getattr(module, hooks, {}) for hooks in _HOOKS)]
        yield from (value for owner in owners for value in owner.values() if is_ours(value))


def results(model: nn.Module) -> Iterator[Tensor]:
    """Yield the attributes that a forward left with their history, which cannot be copied."""
    for module in model.modules():
        for value in (*vars(module).values(), *module._buffers.values()):
            if isinstance(value, Tensor) and not value.is_leaf:
                yield value


def is_ours(value: Any) -> bool:
    """Return whether a hook, module or attribute comes from this library."""
    while isinstance(value, partial | _WrappedHook):
        value = value.func if isinstance(value, partial) else value.hook
    value = getattr(value, "__self__", value)
    where = getattr(value, "__module__", None) or ""
    return isinstance(where, str) and where.partition(".")[0] == _PACKAGE


def _forget(module: nn.Module, left: _Left) -> None:
    """Take the stand-ins out of one module of the copy."""
    for name in _HOOKS:
        hooks = getattr(module, name, {})
        for key in [k for k, v in hooks.items() if v is left]:
            del hooks[key]
            for option in _HOOK_OPTIONS:
                getattr(module, option, {}).pop(key, None)
    for owner in (vars(module), module._modules):
        for name in [n for n, v in owner.items() if v is left]:
            del owner[name]
