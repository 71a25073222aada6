"""Conditions on units as small integers, and the algebra of such labels over whole tensors.

A label stands beside every element of a tensor and says when that element can be non-zero:

* `ZERO`: never, it is zero by construction (padding, `torch.zeros`);
* `LIVE`: always, whatever the gates do;
* `k >= 2`: only if the condition number `k` holds.

A condition is a conjunction of sets of units: in each of its sets at least one unit must be on. Sums make the sets
larger, products of two gated tensors (gated MLPs, linear attention) add sets. A label may promise less than is true
(a larger set, a set left out, LIVE), never more: that is the invariant every rule keeps.

Label tensors are mostly constant along most dimensions; such dimensions have stride zero (`expand`), and all that is
done here is done once for each of them.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from fgadahat_hooks.graph.tracing.geometry import product, reduced

ZERO = 0
LIVE = 1
_NO_LABEL = 2**31 - 1
_MOST_SETS = 4
_MOST_PAIRS = 2**15
_MOST_ATOMS = 512
"""Beyond these a label says less than it could, so that a trace takes seconds: hundreds of units are hardly ever all
off."""

Condition = frozenset[frozenset[int]]
"""Sets of atoms, in each of which at least one must be on."""


def tidied(sets: Iterable[frozenset[int]], cost: Callable[[frozenset[int]], Any]) -> Condition:
    """Leave out sets that hold another one or very many atoms, and of many sets those that cost the most: all safe."""
    distinct = frozenset(one for one in sets if len(one) <= _MOST_ATOMS)
    if len(distinct) <= 1:
        return distinct
    kept: list[frozenset[int]] = []
    for one in sorted(distinct, key=cost):
        if not any(other <= one for other in kept):
            kept.append(one)
    return frozenset(kept[:_MOST_SETS])


def constant(label: int, shape: Sequence[int] = ()) -> Tensor:
    """Return a tensor that has one label everywhere."""
    return torch.tensor(label, dtype=torch.int32, device="cpu").expand(torch.Size(shape))


class LabelTable:
    """Interns conditions on atoms (numbered units) as labels and combines label tensors."""

    def __init__(self, singles: int = 0) -> None:
        """Start with `ZERO`, `LIVE` and the sets of one atom, whose labels need no memory.

        Args:
            singles: Number of atoms `a` whose set `{a}` has the label `single(a)` from the start.
        """
        self.singles = singles
        self._conditions: list[Condition] = []
        self._ids: dict[Condition, int] = {}
        self._unions: dict[tuple[int, int], int] = {}
        self._probes: set[int] = set()

    def add_probes(self, atoms: Iterable[int]) -> None:
        """Mark atoms that will turn out live: sets holding one are the first to be left out of a condition."""
        self._probes.update(atoms)

    def single(self, atom: int) -> int:
        """Return the label of the set of one of the first atoms."""
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
        """Return the number of labels there are."""
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
        """Return the label of "a or b": every set of the one united with every set of the other."""
        if a == b or b == ZERO:
            return a
        if a == ZERO:
            return b
        if LIVE in (a, b):
            return LIVE
        key = (a, b) if a < b else (b, a)
        if key not in self._unions:
            pairs = itertools.product(self.sets(a), self.sets(b))
            self._unions[key] = self._intern(self._tidy(x | y for x, y in pairs))
        return self._unions[key]

    def join_all(self, labels: Iterable[int]) -> int:
        """Return the label of "any of them"; one set operation for all that have one set, however many there are."""
        distinct = set(labels) - {ZERO}
        if LIVE in distinct:
            return LIVE
        if len(distinct) <= 1:
            return distinct.pop() if distinct else ZERO
        several = sorted(label for label in distinct if len(self.sets(label)) > 1)
        if len(several) > _MOST_SETS:
            return self._any_of([self.sets(label) for label in distinct])
        distinct.difference_update(several)
        joined = self._intern(self._tidy([frozenset().union(*map(self.atoms, distinct))])) if distinct else ZERO
        for label in several:
            joined = self.join(joined, label)
        return joined

    def _any_of(self, conditions: Sequence[Condition]) -> int:
        """Return a label of "any of many conditions", without going through all ways to pair their sets.

        What all of them ask for stays; of the rest, one set each is united.
        """
        common = frozenset.intersection(*conditions)
        rests = [condition - common for condition in conditions]
        if not all(rests):
            return self._intern(self._tidy(common))
        rest = frozenset().union(*(min(sets, key=self._cost) for sets in rests))
        return self._intern(self._tidy([*common, rest]))

    def meet(self, a: int, b: int) -> int:
        """Return the label of "a and b": the sets of both."""
        if a == b or b == LIVE:
            return a
        if a == LIVE:
            return b
        return ZERO if ZERO in (a, b) else self._intern(self._tidy(self.sets(a) | self.sets(b)))

    def _tidy(self, sets: Iterable[frozenset[int]]) -> Condition:
        return tidied(sets, self._cost)

    def _cost(self, atoms: frozenset[int]) -> tuple[bool, int, list[int]]:
        """Order sets: the fewer units can make an element non-zero, the better, and the same order in every run."""
        return not self._probes.isdisjoint(atoms), len(atoms), sorted(atoms)

    def either(self, a: Tensor, b: Tensor) -> Tensor:
        """Element-wise "a or b", the label of a sum; broadcasts.

        Where too many different pairs meet (channels times positions, in a mixer), all of them are live.
        """
        a, b = torch.broadcast_tensors(a, b)
        if self._is_too_much(*reduced(a, b)):
            return torch.where(a == b, a, torch.where(a == ZERO, b, torch.where(b == ZERO, a, LIVE)))
        return self._pairwise(a, b, self.join)

    def both(self, a: Tensor, b: Tensor) -> Tensor:
        """Element-wise "a and b", the label of a product; broadcasts.

        Where too many different pairs meet (channels times positions, in an MLP over positions), one factor is kept.
        """
        a, b = torch.broadcast_tensors(a, b)
        small = reduced(a, b)
        if self._is_too_much(*small):
            first, second = (a, b) if small[0].unique().numel() >= small[1].unique().numel() else (b, a)
            return torch.where((first == LIVE) | (second == ZERO), second, first)
        return self._pairwise(a, b, self.meet)

    def _is_too_much(self, a: Tensor, b: Tensor) -> bool:
        """Return whether so many different labels meet that going through all pairs would take long."""
        if a.numel() <= _MOST_PAIRS:
            return False
        told = (a != b) & (a > LIVE) & (b > LIVE)
        return bool(told.any()) and self._pairs(a, b)[told].unique().numel() > _MOST_PAIRS

    def _pairs(self, a: Tensor, b: Tensor) -> Tensor:
        return a.long() * len(self) + b.long()

    def _pairwise(self, a: Tensor, b: Tensor, function: Callable[[int, int], int]) -> Tensor:
        """Apply a function, for which `f(a, a) = a`, once to every distinct pair of labels."""
        a, b = torch.broadcast_tensors(a, b)
        shape = a.shape
        a, b = reduced(a, b)
        if torch.equal(a, b):
            return a.expand(shape)
        size = len(self)
        pairs, where = torch.unique(self._pairs(a, b), return_inverse=True)
        joined = [function(p // size, p % size) for p in pairs.tolist()]
        return torch.tensor(joined, dtype=torch.int32, device="cpu")[where].expand(shape)

    def over(self, labels: Tensor, dims: Sequence[int]) -> Tensor:
        """Union over `dims`, which stay as dimensions of size one: the label of a sum, mean or maximum over them."""
        dims = sorted({d % labels.dim() for d in dims}) if labels.dim() else []
        shape = [1 if d in dims else n for d, n in enumerate(labels.shape)]
        (small,) = reduced(labels)
        if 0 in small.shape:
            return constant(ZERO, shape)
        if all(small.shape[d] == 1 for d in dims):
            return small.expand(shape)
        kept = [d for d in range(labels.dim()) if d not in dims]
        rows = small.permute([*kept, *dims]).reshape(-1, product(small.shape[d] for d in dims))
        union = self._union_of_rows(rows)
        return union.view([1 if d in dims else small.shape[d] for d in range(labels.dim())]).expand(shape)

    def _union_of_rows(self, rows: Tensor) -> Tensor:
        """Union along axis 1 of a matrix; only rows that hold two labels besides ZERO cost time, equal ones once."""
        out = rows.amax(1)
        low = rows.masked_fill(rows == ZERO, _NO_LABEL).amin(1)
        mixed = ((low != out) & (out != ZERO)).nonzero().flatten()
        if mixed.numel():
            distinct, where = _distinct_rows(rows[mixed])
            united = [self.join_all(row) for row in distinct.tolist()]
            out[mixed] = torch.tensor(united, dtype=torch.int32, device="cpu")[where]
        return out


def _distinct_rows(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Return rows among which all different ones are found, and for each row its equal among them."""
    weights = torch.arange(1, rows.shape[1] + 1, device="cpu") * 2_654_435_761 % 1_000_000_007
    _, where = torch.unique((rows * weights).sum(1), return_inverse=True)
    first = torch.zeros(int(where.max()) + 1, dtype=torch.long, device="cpu")
    first[where] = torch.arange(len(rows), device="cpu")
    distinct = rows[first]
    if torch.equal(distinct[where], rows):
        return distinct, where
    return rows, torch.arange(len(rows), device="cpu")
