"""One executed tensor operation: its name, arguments and outputs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from fgadahat_hooks.graph.tracing.storage import is_plain, storage_key

_KNOWN_NAMESPACES = frozenset(("aten", "prim", "prims"))


@dataclass(frozen=True)
class Operation:
    """An ATen operation with its arguments and its output."""

    func: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    out: Any

    @cached_property
    def name(self) -> str:
        """Its name as in ATen, without the underscore of the in-place variant."""
        name: str = self.func.overloadpacket.__name__
        return name if name.endswith("__") else name.removesuffix("_")

    @property
    def mutable(self) -> bool:
        """Whether it writes into an argument."""
        return bool(self.func._schema.is_mutable)

    @cached_property
    def inputs(self) -> list[Tensor]:
        """All plain tensor arguments, those written into included."""
        return list(plain_tensors((self.args, self.kwargs)))

    @cached_property
    def bound(self) -> dict[str, Any]:
        """All arguments by their names in the schema, defaults filled in."""
        schema = self.func._schema.arguments
        bound = {a.name: a.default_value for a in schema if a.has_default_value()}
        bound.update({a.name: value for a, value in zip(schema, self.args, strict=False)})
        return {**bound, **self.kwargs}

    @cached_property
    def written(self) -> list[Tensor]:
        """The tensors it writes into, in the order of its schema."""
        arguments = self.func._schema.arguments
        names = [a.name for a in arguments if a.alias_info is not None and a.alias_info.is_write]
        return [t for name in names for t in plain_tensors(self.bound[name])]

    @cached_property
    def first_out(self) -> Tensor | None:
        """Its first output, None if that is no tensor."""
        first = self.out[0] if isinstance(self.out, list | tuple) and self.out else self.out
        return first if isinstance(first, Tensor) else None

    @property
    def is_in_place(self) -> bool:
        """Whether it writes into its first argument and nothing else, and returns a tensor."""
        written = self.written
        return len(written) == 1 and bool(self.args) and written[0] is self.args[0] and self.first_out is not None

    @property
    def is_view(self) -> bool:
        """Whether it only returns views of its arguments' memory, whose labels stay."""
        if torch.Tag.inplace_view in self.func.tags:
            return True
        if self.mutable:
            return False
        outs = list(plain_tensors(self.out))
        keys = {storage_key(t) for t in self.inputs}
        return bool(outs) and all(storage_key(o) in keys for o in outs)


def is_foreign(func: Any) -> bool:
    """Return whether nothing can be trusted about an operation, not even that it leaves its arguments alone."""
    return getattr(func, "namespace", None) not in _KNOWN_NAMESPACES or not hasattr(func, "_schema")


def plain_tensors(tree: Any) -> Iterator[Tensor]:
    """Yield the plain tensors in nested arguments."""
    for leaf in pytree.tree_leaves(tree):
        if isinstance(leaf, Tensor) and is_plain(leaf):
            yield leaf
