"""Conditions on units as small integers, and the algebra of such labels over whole tensors.

Each element of a tensor has a label, which gives when the element can be non-zero:

* `ZERO`: never, it is zero by construction (padding, `torch.zeros`);
* `LIVE`: always, whatever the gates do;
* `k >= 2`: only if the condition number `k` holds.

A condition is a conjunction of sets of units: in each of its sets at least one unit must be on. Sums make the sets
larger (*join*, "a or b"), products of two gated tensors (gated MLPs, linear attention) add sets (*meet*, "a and b"). A
label may promise less than is true (a larger set, a set left out, LIVE), never more: every rule keeps this invariant.

Most label tensors are constant along most dimensions. Such dimensions have stride zero (`expand`), and each is
processed once, not once an element.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Sequence, Set
from typing import Any

import torch
from torch import Tensor

from fgadahat_hooks.graph.tracing.storage import narrow_expanded

ZERO = 0
LIVE = 1
_NO_LABEL = 2**31 - 1
_MAX_SETS = 4
_MAX_PAIRS = 2**15
_MAX_ATOMS = 512
"""Beyond these limits a label promises less than it could, so that a trace takes seconds: hundreds of units are hardly
ever all off."""

Condition = frozenset[frozenset[int]]
"""Sets of atoms (numbered units), in each of which at least one must be on."""


def simplified(sets: Iterable[frozenset[int]], cost: Callable[[frozenset[int]], Any]) -> Condition:
    """Leave out sets that contain another set or very many atoms, and, of many sets, the costliest: all of it safe."""
    distinct = frozenset(one for one in sets if len(one) <= _MAX_ATOMS)
    if len(distinct) <= 1:
        return distinct
    kept: list[frozenset[int]] = []
    for one in sorted(distinct, key=cost):
        if not any(other <= one for other in kept):
            kept.append(one)
    return frozenset(kept[:_MAX_SETS])


def constant(label: int, shape: Sequence[int] = ()) -> Tensor:
    """Return a tensor with one label everywhere."""
    return torch.tensor(label, dtype=torch.int32, device="cpu").expand(torch.Size(shape))


class LabelTable:
    """Interns conditions on atoms as labels, and combines labels and label tensors."""

    def __init__(self, singles: int = 0) -> None:
        """Start with `ZERO`, `LIVE` and the sets of one atom, whose labels need no memory.

        Args:
            singles: Number of atoms whose set `{atom}` has the label `single(atom)` from the start.
        """
        self.singles = singles
        self._conditions: list[Condition] = []
        self._ids: dict[Condition, int] = {}
        self._joins: dict[tuple[int, int], int] = {}
        self._ungated: set[int] = set()

    def add_ungated(self, atoms: Iterable[int]) -> None:
        """Mark atoms that no gate can make zero: sets with one of them are the first to be left out of a condition."""
        self._ungated.update(atoms)

    def single(self, atom: int) -> int:
        """Return the label of `{atom}`, for one of the first `singles` atoms."""
        return 2 + atom

    def intern(self, atoms: Iterable[int]) -> int:
        """Return the label of one non-empty set of atoms."""
        return self._intern(frozenset((frozenset(atoms),)))

    def _intern(self, condition: Condition) -> int:
        if not condition:
            return LIVE
        if len(condition) == 1 and len(only := next(iter(condition))) == 1 and (atom := min(only)) < self.singles:
            return self.single(atom)
        found = self._ids.get(condition)
        if found is None:
            found = self._ids[condition] = len(self)
            self._conditions.append(condition)
        return found

    def __len__(self) -> int:
        """Return the number of labels so far."""
        return 2 + self.singles + len(self._conditions)

    def sets(self, label: int) -> Condition:
        """Return the sets of a label, each of which must have a unit on; none for `ZERO` and `LIVE`."""
        if label in (ZERO, LIVE):
            return frozenset()
        if label < 2 + self.singles:
            return frozenset((frozenset((label - 2,)),))
        return self._conditions[label - 2 - self.singles]

    def atoms(self, label: int) -> frozenset[int]:
        """Return all atoms of a label; none for `ZERO` and `LIVE`."""
        return frozenset().union(*self.sets(label))

    def join(self, a: int, b: int) -> int:
        """Return the label of "a or b": every set of `a` united with every set of `b`."""
        if a == b or b == ZERO:
            return a
        if a == ZERO:
            return b
        if LIVE in (a, b):
            return LIVE
        key = (a, b) if a < b else (b, a)
        if key not in self._joins:
            pairs = itertools.product(self.sets(a), self.sets(b))
            self._joins[key] = self._intern(self._simplify(x | y for x, y in pairs))
        return self._joins[key]

    def join_all(self, labels: Iterable[int]) -> int:
        """Return the label of "any of them"; all labels of one set are united in one set operation."""
        distinct = set(labels) - {ZERO}
        if LIVE in distinct:
            return LIVE
        if len(distinct) <= 1:
            return distinct.pop() if distinct else ZERO
        several = sorted(label for label in distinct if len(self.sets(label)) > 1)
        if len(several) > _MAX_SETS:
            return self._join_conditions([self.sets(label) for label in distinct])
        distinct.difference_update(several)
        joined = self._intern(self._simplify([frozenset().union(*map(self.atoms, distinct))])) if distinct else ZERO
        for label in several:
            joined = self.join(joined, label)
        return joined

    def _join_conditions(self, conditions: Sequence[Condition]) -> int:
        """Return a label of "any of many conditions", without pairing all of their sets.

        The sets that all conditions have in common stay; of the rest, one set of each condition is united.
        """
        common = frozenset.intersection(*conditions)
        rests = [condition - common for condition in conditions]
        if not all(rests):
            return self._intern(self._simplify(common))
        rest = frozenset().union(*(min(sets, key=self._cost) for sets in rests))
        return self._intern(self._simplify([*common, rest]))

    def meet(self, a: int, b: int) -> int:
        """Return the label of "a and b": the sets of both."""
        if a == b or b == LIVE:
            return a
        if a == LIVE:
            return b
        return ZERO if ZERO in (a, b) else self._intern(self._simplify(self.sets(a) | self.sets(b)))

    def _simplify(self, sets: Iterable[frozenset[int]]) -> Condition:
        return simplified(sets, self._cost)

    def _cost(self, atoms: frozenset[int]) -> tuple[bool, int, list[int]]:
        """Order sets: those of fewer units promise more and cost less; the order is the same in every run."""
        return not self._ungated.isdisjoint(atoms), len(atoms), sorted(atoms)

    def join_tensors(self, a: Tensor, b: Tensor) -> Tensor:
        """Return element-wise "a or b", the labels of a sum; broadcasts.

        If there are too many different pairs (channels times positions, in a mixer), all such pairs become live.
        """
        a, b = torch.broadcast_tensors(a, b)
        if self._has_too_many_pairs(*narrow_expanded(a, b)):
            return torch.where(a == b, a, torch.where(a == ZERO, b, torch.where(b == ZERO, a, LIVE)))
        return self._pairwise(a, b, self.join)

    def meet_tensors(self, a: Tensor, b: Tensor) -> Tensor:
        """Return element-wise "a and b", the labels of a product; broadcasts.

        If there are too many different pairs (channels times positions, in an MLP over positions), one factor is kept.
        """
        a, b = torch.broadcast_tensors(a, b)
        small = narrow_expanded(a, b)
        if self._has_too_many_pairs(*small):
            first, second = (a, b) if small[0].unique().numel() >= small[1].unique().numel() else (b, a)
            return torch.where((first == LIVE) | (second == ZERO), second, first)
        return self._pairwise(a, b, self.meet)

    def _has_too_many_pairs(self, a: Tensor, b: Tensor) -> bool:
        """Return whether there are so many different pairs of labels that combining each would take long."""
        if a.numel() <= _MAX_PAIRS:
            return False
        costly = (a != b) & (a > LIVE) & (b > LIVE)
        return bool(costly.any()) and self._pairs(a, b)[costly].unique().numel() > _MAX_PAIRS

    def _pairs(self, a: Tensor, b: Tensor) -> Tensor:
        """Return one number for each pair of labels."""
        return a.long() * len(self) + b.long()

    def _pairwise(self, a: Tensor, b: Tensor, function: Callable[[int, int], int]) -> Tensor:
        """Apply a function, for which `f(a, a) = a`, once to every distinct pair of labels."""
        a, b = torch.broadcast_tensors(a, b)
        shape = a.shape
        a, b = narrow_expanded(a, b)
        if torch.equal(a, b):
            return a.expand(shape)
        size = len(self)
        pairs, where = torch.unique(self._pairs(a, b), return_inverse=True)
        joined = [function(p // size, p % size) for p in pairs.tolist()]
        return torch.tensor(joined, dtype=torch.int32, device="cpu")[where].expand(shape)

    def join_over(self, labels: Tensor, dims: Sequence[int]) -> Tensor:
        """Join over `dims`, which stay as dimensions of size one: the labels of a sum, mean or maximum over them."""
        joined_dims = {d % labels.dim() for d in dims} if labels.dim() else set()
        shape = [1 if d in joined_dims else n for d, n in enumerate(labels.shape)]
        (small,) = narrow_expanded(labels)
        if 0 in small.shape:
            return constant(ZERO, shape)
        if all(small.shape[d] == 1 for d in joined_dims):
            return small.expand(shape)
        joined = self._join_rows(_as_rows(small, joined_dims))
        return joined.view([1 if d in joined_dims else n for d, n in enumerate(small.shape)]).expand(shape)

    def _join_rows(self, rows: Tensor) -> Tensor:
        """Join along axis 1 of a matrix; only rows with two labels besides ZERO cost time, equal rows once."""
        out = rows.amax(1)
        low = rows.masked_fill(rows == ZERO, _NO_LABEL).amin(1)
        mixed = ((low != out) & (out != ZERO)).nonzero().flatten()
        if mixed.numel():
            distinct, where = _distinct_rows(rows[mixed])
            joined = [self.join_all(row) for row in distinct.tolist()]
            out[mixed] = torch.tensor(joined, dtype=torch.int32, device="cpu")[where]
        return out


def _as_rows(labels: Tensor, dims: Set[int]) -> Tensor:
    """Return the labels as a matrix, with the elements along `dims` in a row."""
    last = sorted(dims)
    kept = [d for d in range(labels.dim()) if d not in dims]
    return labels.permute([*kept, *last]).reshape(-1, math.prod(labels.shape[d] for d in last))


def _distinct_rows(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Return the different rows, and for each row the index of its equal among them; all rows if a hash collides."""
    weights = torch.arange(1, rows.shape[1] + 1, device="cpu") * 2_654_435_761 % 1_000_000_007
    _, where = torch.unique((rows * weights).sum(1), return_inverse=True)
    first = torch.zeros(int(where.max()) + 1, dtype=torch.long, device="cpu")
    first[where] = torch.arange(len(rows), device="cpu")
    distinct = rows[first]
    if torch.equal(distinct[where], rows):
        return distinct, where
    return rows, torch.arange(len(rows), device="cpu")
