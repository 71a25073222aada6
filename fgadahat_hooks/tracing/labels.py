"""Sets of units as small integers, and the algebra of such labels over whole tensors.

A label stands beside every element of a tensor and says when that element can be non-zero:

* `ZERO`: never, it is zero by construction (padding, `torch.zeros`);
* `LIVE`: always, whatever the gates do;
* `k >= 2`: only if at least one unit of the set number `k` is on.

A label may promise less than is true (a larger set, or LIVE), never more: that is the invariant every rule keeps.

Label tensors are mostly constant along most dimensions; such dimensions have stride zero (`expand`), and all that is
done here is done once for each of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor

from fgadahat_hooks.tracing.geometry import product, reduced

ZERO = 0
LIVE = 1
_NO_LABEL = 2**31 - 1


def constant(label: int, shape: Sequence[int] = ()) -> Tensor:
    """Return a tensor that has one label everywhere."""
    return torch.tensor(label, dtype=torch.int32, device="cpu").expand(torch.Size(shape))


class LabelTable:
    """Interns sets of atoms (numbered units) as labels and combines label tensors."""

    def __init__(self, singles: int = 0) -> None:
        """Start with `ZERO`, `LIVE` and the sets of one atom, whose labels need no memory.

        Args:
            singles: Number of atoms `a` whose set `{a}` has the label `single(a)` from the start.
        """
        self._singles = singles
        self._sets: list[frozenset[int]] = []
        self._ids: dict[frozenset[int], int] = {}
        self._unions: dict[tuple[int, int], int] = {}
        self._probes: set[int] = set()

    def add_probes(self, atoms: Iterable[int]) -> None:
        """Mark atoms that will turn out live: sets holding one are the worse choice in `both`."""
        self._probes.update(atoms)

    def single(self, atom: int) -> int:
        """Return the label of the set of one of the first atoms."""
        return 2 + atom

    def intern(self, atoms: frozenset[int]) -> int:
        """Return the label of a non-empty set of atoms."""
        if len(atoms) == 1 and (atom := next(iter(atoms))) < self._singles:
            return self.single(atom)
        found = self._ids.get(atoms)
        if found is None:
            found = self._ids[atoms] = len(self)
            self._sets.append(atoms)
        return found

    def __len__(self) -> int:
        """Return the number of labels there are."""
        return 2 + self._singles + len(self._sets)

    def atoms(self, label: int) -> frozenset[int]:
        """Return the set behind a label; empty for `ZERO` and `LIVE`."""
        if label in (ZERO, LIVE):
            return frozenset()
        if label < 2 + self._singles:
            return frozenset((label - 2,))
        return self._sets[label - 2 - self._singles]

    def _cost(self, label: int) -> float:
        """Return how much a label gives away: the fewer units can make an element non-zero, the better."""
        if label in (ZERO, LIVE):
            return -1.0 if label == ZERO else float("inf")
        atoms = self.atoms(label)
        return float(len(atoms)) if self._probes.isdisjoint(atoms) else 1e9

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
            self._unions[key] = self.intern(self.atoms(a) | self.atoms(b))
        return self._unions[key]

    def join_all(self, labels: Iterable[int]) -> int:
        """Return the label of "any of them"; one set operation, however many there are."""
        distinct = set(labels) - {ZERO}
        if LIVE in distinct:
            return LIVE
        if len(distinct) <= 1:
            return distinct.pop() if distinct else ZERO
        return self.intern(frozenset().union(*(self.atoms(label) for label in distinct)))

    def meet(self, a: int, b: int) -> int:
        """Return a label of "a and b". Either of the two is a safe answer: the smaller set is taken."""
        return a if self._cost(a) <= self._cost(b) else b

    def either(self, a: Tensor, b: Tensor) -> Tensor:
        """Element-wise "a or b", the label of a sum; broadcasts."""
        return self._pairwise(a, b, self.join)

    def both(self, a: Tensor, b: Tensor) -> Tensor:
        """Element-wise "a and b", the label of a product; broadcasts."""
        return self._pairwise(a, b, self.meet)

    def _pairwise(self, a: Tensor, b: Tensor, function: Callable[[int, int], int]) -> Tensor:
        """Apply a function, for which `f(a, a) = a`, once to every distinct pair of labels."""
        a, b = torch.broadcast_tensors(a, b)
        shape = a.shape
        a, b = reduced(a, b)
        if torch.equal(a, b):
            return a.expand(shape)
        size = len(self)
        pairs, where = torch.unique(a.long() * size + b.long(), return_inverse=True)
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
