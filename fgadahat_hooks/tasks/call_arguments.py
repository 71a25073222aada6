"""Arguments of a call to the model: copies of them, and their form in a saved state."""

from __future__ import annotations

import copy
import sys
from collections import UserDict
from collections.abc import Callable
from functools import reduce
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

TYPE = "type of arguments"
"""Key that names the type in the saved form of what is no plain data."""


def map_tensors(function: Callable[[Tensor], Tensor], value: Any) -> Any:
    """Return nested arguments in new containers of the same types, with the tensors that a function returns.

    Args:
        function: Takes each tensor.
        value: Lists, tuples, named tuples (packed sequences, too) and dicts; other objects stay the same.
    """

    def mapped(leaf: Any) -> Any:
        if isinstance(leaf, Tensor):
            return function(leaf)
        if _is_named_tuple(leaf):
            return type(leaf)._make([map_tensors(function, part) for part in leaf])
        if isinstance(leaf, UserDict):
            copied = copy.copy(leaf)
            copied.data = {key: map_tensors(function, part) for key, part in leaf.data.items()}
            return copied
        return leaf

    return pytree.tree_map(mapped, value, is_leaf=lambda part: _is_named_tuple(part) or isinstance(part, UserDict))


def tensors_in(value: Any) -> list[Tensor]:
    """Return the tensors in nested arguments, in their order."""
    found: list[Tensor] = []

    def take(tensor: Tensor) -> Tensor:
        found.append(tensor)
        return tensor

    map_tensors(take, value)
    return found


def _is_named_tuple(value: Any) -> bool:
    return isinstance(value, tuple) and hasattr(value, "_fields")


# ------------------------------------------------------------------ in a saved state
def to_plain(value: Any) -> Any:
    """Return arguments as plain data: tensors, numbers, strings, None, lists, tuples, and dicts with string keys.

    Raises:
        ValueError: They hold something else; the message is the name of its type.
    """
    if isinstance(value, str | int | float | None):
        return value
    if isinstance(value, Tensor):
        return _plain_tensor(value)
    if type(value) in (list, tuple):
        return type(value)(map(to_plain, value))
    if type(value) is dict and TYPE not in value and all(isinstance(key, str) for key in value):
        return dict(zip(value, map(to_plain, value.values()), strict=True))
    return _tagged(value)


def _tagged(value: Any) -> Any:
    """Return what is no plain data with its type."""
    if isinstance(value, np.ndarray) and value.dtype.kind in "bif":
        return {TYPE: "array", "items": [torch.from_numpy(value.copy())]}
    name = f"{type(value).__module__}:{type(value).__qualname__}"
    if _is_named_tuple(value) and _named_tuple(name) is type(value):
        return {TYPE: name, "items": [to_plain(part) for part in value]}
    raise ValueError(type(value).__name__)


def _plain_tensor(tensor: Tensor) -> Any:
    plain = type(tensor) in (Tensor, nn.Parameter) and not tensor.is_quantized
    if plain and tensor.layout is torch.strided:
        return tensor
    if plain and tensor.layout is torch.sparse_coo:
        parts: list[Any] = [tensor._indices(), tensor._values(), list(tensor.shape), tensor.is_coalesced()]
        return {TYPE: "sparse", "items": parts}
    raise ValueError(f"{type(tensor).__name__} of layout {tensor.layout}")


def from_plain(value: Any) -> Any:
    """Return the arguments from what `to_plain` returned.

    Raises:
        ValueError: A named tuple's class is not there (its module must have been imported); the message is its name.
    """
    if isinstance(value, list | tuple):
        return type(value)(from_plain(part) for part in value)
    if not isinstance(value, dict):
        return value
    if TYPE not in value:
        return {key: from_plain(part) for key, part in value.items()}
    name, items = value[TYPE], value["items"]
    if name == "array":
        return items[0].cpu().numpy()
    if name == "sparse":
        return torch.sparse_coo_tensor(*items[:3], is_coalesced=items[3], check_invariants=True)
    found = _named_tuple(name)
    if found is None:
        raise ValueError(name)
    return found._make([from_plain(part) for part in items])


def _named_tuple(name: str) -> Any:
    """Return the class of named tuples with a name such as `module:Outer.Class`; None if there is none."""
    module, _, path = name.partition(":")
    found = reduce(lambda owner, part: getattr(owner, part, None), path.split("."), sys.modules.get(module))
    is_one = isinstance(found, type) and issubclass(found, tuple) and hasattr(found, "_fields")
    return found if is_one else None
