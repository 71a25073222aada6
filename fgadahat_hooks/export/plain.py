"""A copy of an attached model without gates, hooks and attributes of this library."""

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


class _Placeholder:
    """Takes the place of an object of this library in a copy, until it is deleted there."""


def plain_copy(model: nn.Module) -> nn.Module:
    """Copy a model without gates, hooks and attributes of this library, in evaluation mode.

    They are left out while copying, not removed after it: hooks of a running task may hold what cannot be copied.
    Everything else is copied, the user's own hooks too.
    """
    placeholder = _Placeholder()
    memo: dict[int, Any] = {id(value): placeholder for value in _library_objects(model)}
    memo |= {id(t): t.detach().clone() for t in non_leaf_tensors(model)}
    plain = copy.deepcopy(model, memo)
    for module in plain.modules():
        _delete_placeholders(module, placeholder)
    return plain.eval()


def _library_objects(model: nn.Module) -> Iterator[Any]:
    """Yield the hooks, submodules and attributes of this library on the modules of a model."""
    for module in model.modules():
        owners = [vars(module), module._modules, *(getattr(module, hooks, {}) for hooks in _HOOKS)]
        yield from (value for owner in owners for value in owner.values() if is_ours(value))


def non_leaf_tensors(model: nn.Module) -> Iterator[Tensor]:
    """Yield the attributes and buffers that a forward left with an autograd history: `deepcopy` refuses them."""
    for module in model.modules():
        for value in (*vars(module).values(), *module._buffers.values()):
            if isinstance(value, Tensor) and not value.is_leaf:
                yield value


def is_ours(value: Any) -> bool:
    """Return whether a hook, module or attribute comes from this library."""
    while isinstance(value, partial | _WrappedHook):
        value = value.func if isinstance(value, partial) else value.hook
    value = getattr(value, "__self__", value)
    module_name = getattr(value, "__module__", None) or ""
    return isinstance(module_name, str) and module_name.partition(".")[0] == _PACKAGE


def _delete_placeholders(module: nn.Module, placeholder: _Placeholder) -> None:
    """Delete the placeholder wherever one module of the copy holds it."""
    for name in _HOOKS:
        hooks = getattr(module, name, {})
        for key in [k for k, v in hooks.items() if v is placeholder]:
            del hooks[key]
            for option in _HOOK_OPTIONS:
                getattr(module, option, {}).pop(key, None)
    for owner in (vars(module), module._modules):
        for name in [n for n, v in owner.items() if v is placeholder]:
            del owner[name]
