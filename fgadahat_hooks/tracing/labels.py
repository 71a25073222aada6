"""Sets of units as small integers, and the algebra of such labels over whole tensors.

A label stands beside every element of a tensor and says when that element can be non-zero:

* `ZERO`: never, it is zero by construction (padding, `torch.zeros`);
* `LIVE`: always, whatever the gates do;
* `k >= 2`: only if at least one unit of the set number `k` is on.

A label may promise less than is true (a larger set, or LIVE), never more: that is the invariant every rule keeps.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

ZERO = 0
LIVE = 1


class LabelTable:
    """Interns sets of atoms (numbered units) as labels and combines label tensors."""

    def __init__(self) -> None:
        """Start with the two labels that are no sets."""
        self._sets: list[frozenset[int]] = [frozenset(), frozenset()]
        self._ids: dict[frozenset[int], int] = {}
        self._unions: dict[tuple[int, int], int] = {}
        self._cost: list[float] = [-1.0, float("inf")]
        self._probes: set[int] = set()
        self.approximate: set[int] = set()

    def add_probes(self, atoms: Iterable[int]) -> None:
        """Mark atoms that will turn out live: sets holding one are the worse choice in `both`."""
        self._probes.update(atoms)

    def intern(self, atoms: frozenset[int]) -> int:
        """Return the label of a non-empty set of atoms."""
        found = self._ids.get(atoms)
        if found is None:
            found = self._ids[atoms] = len(self._sets)
            self._sets.append(atoms)
            self._cost.append(1e9 if not self._probes.isdisjoint(atoms) else float(len(atoms)))
        return found

    def atoms(self, label: int) -> frozenset[int]:
        """Return the set behind a label; empty for `ZERO` and `LIVE`."""
        return self._sets[label]

    def join(self, a: int, b: int) -> int:
        """Return the label of "a or b"."""
        if a == b or b == ZERO:
            return a
        if a == ZERO:
            return b
        if LIVE in (a, b):
            return LIVE
        key = (a, b) if a < b else (b, a)
        if key not in self._unions:
            self._unions[key] = self.intern(self._sets[a] | self._sets[b])
        return self._unions[key]

    def join_all(self, labels: Iterable[int]) -> int:
        """Return the label of "any of them"; one set operation, however many there are."""
        distinct = set(labels) - {ZERO}
        if LIVE in distinct:
            return LIVE
        if len(distinct) <= 1:
            return distinct.pop() if distinct else ZERO
        return self.intern(frozenset().union(*(self._sets[label] for label in distinct)))

    def either(self, a: Tensor, b: Tensor) -> Tensor:
        """Element-wise "a or b", the label of a sum; broadcasts."""
        a, b = torch.broadcast_tensors(a, b)
        shape = a.shape
        a, b = squeeze_constant(a, b)
        if torch.equal(a, b):
            return a.expand(shape)
        size = len(self._sets)
        pairs, where = torch.unique(a.long() * size + b.long(), return_inverse=True)
        joined = [self.join(p // size, p % size) for p in pairs.tolist()]
        return torch.tensor(joined, dtype=torch.int32)[where].expand(shape)

    def both(self, a: Tensor, b: Tensor) -> Tensor:
        """Element-wise "a and b", the label of a product. One of the two is a safe answer: the smaller set is taken."""
        cost = torch.tensor(self._cost)
        a, b = torch.broadcast_tensors(a, b)
        return torch.where(cost[a.long()] <= cost[b.long()], a, b)

    def over(self, labels: Tensor, dims: Sequence[int]) -> Tensor:
        """Union over `dims`, which stay as dimensions of size one: the label of a sum, mean or maximum over them."""
        dims = [d % labels.dim() for d in dims] if labels.dim() else []
        shape = [1 if d in dims else n for d, n in enumerate(labels.shape)]
        (small,) = squeeze_constant(labels)
        if all(small.shape[d] == 1 for d in dims):
            return small.expand(shape)
        kept = [d for d in range(labels.dim()) if d not in dims]
        rows = small.permute(*kept, *dims).reshape(-1, _product(small.shape[d] for d in dims))
        reduced = self._union_of_rows(rows)
        return reduced.view([1 if d in dims else small.shape[d] for d in range(labels.dim())]).expand(shape)

    def _union_of_rows(self, rows: Tensor) -> Tensor:
        """Union along axis 1 of a matrix."""
        size = len(self._sets)
        keys = torch.unique(torch.arange(len(rows)).unsqueeze(1) * size + rows.long()).tolist()
        members: list[list[int]] = [[] for _ in range(len(rows))]
        for key in keys:
            members[key // size].append(key % size)
        memo: dict[tuple[int, ...], int] = {}
        out = [memo.get(m) if m in memo else memo.setdefault(m, self.join_all(m)) for m in map(tuple, members)]
        return torch.tensor(out, dtype=torch.int32)


def squeeze_constant(*tensors: Tensor) -> list[Tensor]:
    """Cut every dimension along which all the (equally shaped) tensors are constant to size one."""
    out = list(tensors)
    for dim in range(out[0].dim()):
        if out[0].shape[dim] > 1 and all(_constant(t, dim) for t in out):
            out = [t.narrow(dim, 0, 1) for t in out]
    return out


def _constant(t: Tensor, dim: int) -> bool:
    return t.stride(dim) == 0 or bool((t == t.narrow(dim, 0, 1)).all())


def _product(numbers: Iterable[int]) -> int:
    out = 1
    for number in numbers:
        out *= number
    return out
