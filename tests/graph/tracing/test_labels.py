from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fgadahat_hooks.graph.tracing.labels import LIVE, ZERO, LabelTable, constant
from fgadahat_hooks.graph.tracing.storage import (
    covers_storage,
    equal,
    expand_along,
    expand_constant,
    is_dense,
    is_plain,
    may_overlap,
    narrow_expanded,
)

SETS = [frozenset(c) for n in (1, 2, 3) for c in itertools.combinations(range(3), n)]


def make_table() -> tuple[LabelTable, list[int]]:
    table = LabelTable()
    return table, [ZERO, LIVE, *(table.intern(s) for s in SETS)]


def meaning(table: LabelTable, label: int, on: frozenset[int]) -> bool:
    """Return whether an element of this label may be non-zero while these atoms are on."""
    return label == LIVE or (label != ZERO and all(s & on for s in table.sets(label)))


@pytest.mark.parametrize("on", [frozenset[int](), *SETS])
def test_join_and_meet_mean_or_and_and(on: frozenset[int]) -> None:
    table, labels = make_table()
    for a, b in itertools.product(labels, labels):
        x, y = meaning(table, a, on), meaning(table, b, on)
        assert meaning(table, table.join(a, b), on) == (x or y)
        assert meaning(table, table.join_all([a, b]), on) == (x or y)
        assert meaning(table, table.meet(a, b), on) == (x and y)
    for a, b, c in itertools.product(labels, repeat=3):
        x, y, z = (meaning(table, label, on) for label in (a, b, c))
        assert meaning(table, table.join(table.meet(a, b), c), on) == ((x and y) or z)
        assert meaning(table, table.join_all([table.meet(a, b), c]), on) == ((x and y) or z)


def test_a_product_keeps_both_sets() -> None:
    table = LabelTable()
    small, large = table.intern((1,)), table.intern((2, 3))
    product = table.meet(small, large)
    assert product == table.meet(large, small)
    assert table.sets(product) == {frozenset((1,)), frozenset((2, 3))}
    assert table.meet(product, small) == product
    assert table.meet(small, LIVE) == small
    assert table.meet(ZERO, small) == ZERO


def test_of_two_nested_sets_the_smaller_is_kept() -> None:
    table = LabelTable()
    assert table.meet(table.intern((1,)), table.intern((1, 2))) == table.intern((1,))


def test_of_many_sets_the_smallest_are_kept_and_ungated_ones_go_first() -> None:
    table = LabelTable()
    table.add_ungated([99])
    product = table.intern((99,))
    for first in range(0, 50, 10):
        product = table.meet(product, table.intern(range(first, first + 2 + first // 10)))
    assert {len(s) for s in table.sets(product)} == {2, 3, 4, 5}
    assert 99 not in table.atoms(product)


@pytest.mark.parametrize("on", [frozenset[int](), *SETS])
def test_any_of_many_products_promises_no_more_than_is_true(on: frozenset[int]) -> None:
    table, labels = make_table()
    products = [table.meet(a, b) for a, b in itertools.product(labels[2:], repeat=2)]
    for count in (6, 9, len(products)):
        joined = table.join_all(products[:count])
        assert meaning(table, joined, on) >= any(meaning(table, p, on) for p in products[:count])


def test_what_many_products_have_in_common_stays() -> None:
    table = LabelTable()
    products = [table.meet(table.intern((0,)), table.intern((k,))) for k in range(1, 10)]
    assert table.sets(table.join_all(products)) == {frozenset((0,)), frozenset(range(1, 10))}


def test_of_too_many_pairs_one_factor_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    table, labels = make_table()
    a = torch.tensor(labels, dtype=torch.int32).view(-1, 1)
    exact = table.meet_tensors(a, a.t())
    monkeypatch.setattr("fgadahat_hooks.graph.tracing.labels._MAX_PAIRS", 4)
    kept = table.meet_tensors(a, a.t())
    for on in [frozenset[int](), *SETS]:
        for one, other in zip(kept.flatten().tolist(), exact.flatten().tolist(), strict=True):
            assert meaning(table, one, on) >= meaning(table, other, on)
    assert (kept == a).sum() + (kept == a.t()).sum() >= kept.numel()


def test_of_too_many_pairs_a_sum_is_live(monkeypatch: pytest.MonkeyPatch) -> None:
    table, labels = make_table()
    a = torch.tensor(labels, dtype=torch.int32).view(-1, 1)
    exact = table.join_tensors(a, a.t())
    monkeypatch.setattr("fgadahat_hooks.graph.tracing.labels._MAX_PAIRS", 4)
    rough = table.join_tensors(a, a.t())
    assert torch.equal(rough.diagonal(), a.flatten())
    assert torch.equal(rough[0], a.flatten())
    assert bool(((rough == exact) | (rough == LIVE)).all())


def test_a_set_of_very_many_units_is_live() -> None:
    table = LabelTable(2000)
    assert table.join_all(range(2, 500)) != LIVE
    assert table.join_all(range(2, 1500)) == LIVE
    assert table.meet(table.join_all(range(2, 400)), LIVE) == table.join_all(range(2, 400))


def test_a_set_has_one_label() -> None:
    table = LabelTable()
    assert table.intern(frozenset((1, 2))) == table.join(table.intern(frozenset((1,))), table.intern(frozenset((2,))))
    assert table.join_all([]) == ZERO
    assert table.atoms(LIVE) == table.atoms(ZERO) == frozenset()


@st.composite
def label_tensors(draw: st.DrawFn) -> Tensor:
    """Draw labels of shape `(2, 3, 4)`, some dimensions expanded."""
    shape = [n if draw(st.booleans()) else 1 for n in (2, 3, 4)]
    count = shape[0] * shape[1] * shape[2]
    values = draw(st.lists(st.integers(0, 2 + len(SETS) - 1), min_size=count, max_size=count))
    return torch.tensor(values, dtype=torch.int32).view(shape).expand(2, 3, 4)


@settings(deadline=None, max_examples=60)
@given(a=label_tensors(), b=label_tensors())
def test_label_tensors_combine_element_wise(a: Tensor, b: Tensor) -> None:
    table, _ = make_table()
    joined, met = table.join_tensors(a, b), table.meet_tensors(a, b)
    assert joined.shape == met.shape == a.shape
    for place in itertools.product(range(2), range(3), range(4)):
        assert int(joined[place]) == table.join(int(a[place]), int(b[place]))
        assert int(met[place]) == table.meet(int(a[place]), int(b[place]))


@settings(deadline=None, max_examples=60)
@given(labels=label_tensors(), dims=st.sets(st.integers(-3, 2), max_size=3))
def test_join_over_dimensions(labels: Tensor, dims: set[int]) -> None:
    table, _ = make_table()
    axes = {d % 3 for d in dims}
    out = table.join_over(labels, sorted(dims))
    assert out.shape == torch.Size([1 if d in axes else n for d, n in enumerate(labels.shape)])
    for place in itertools.product(*(range(n) for n in out.shape)):
        cell = labels[tuple(slice(None) if d in axes else place[d] for d in range(3))]
        assert int(out[place]) == table.join_all(cell.flatten().tolist())


def test_join_over_nothing_is_zero() -> None:
    assert LabelTable().join_over(constant(LIVE, (2, 0)), [1]).tolist() == [[ZERO], [ZERO]]


def test_broadcasting() -> None:
    table, labels = make_table()
    line = torch.tensor(labels[2:5], dtype=torch.int32)
    assert equal(table.join_tensors(line, constant(ZERO)), line)
    assert table.join_tensors(line.view(1, 3), constant(LIVE, (2, 1))).tolist() == [[LIVE] * 3] * 2


# ------------------------------------------------------------------ storage
def test_constant_dimensions_have_stride_zero() -> None:
    t = torch.tensor([[1, 2], [1, 2]], dtype=torch.int32)
    assert expand_constant(t).stride() == (0, 1)
    assert narrow_expanded(expand_constant(t))[0].shape == (1, 2)
    assert torch.equal(expand_constant(t), t)
    assert equal(expand_along(t[0], t, 1), t)
    assert not equal(t, t[:1])


def test_overlap_and_cover() -> None:
    t = torch.zeros(3, 4)
    assert covers_storage(t)
    assert covers_storage(t.t())
    assert is_dense(t[1])
    assert not covers_storage(t[1])
    assert not is_dense(t[:, 1:])
    for view in (t[:, 1:], t[::2], t.t()[1:], t[0], t[1, 1]):
        assert not may_overlap(view)
    for view in (t[:1].expand(3, 4), t.as_strided((3, 4), (2, 1)), t.unfold(1, 2, 1)):
        assert may_overlap(view)


def test_what_is_plain() -> None:
    assert is_plain(torch.zeros(2))
    assert is_plain(torch.nn.Parameter(torch.zeros(2)))
    assert not is_plain(torch.zeros(2).to_sparse())
    seen: list[bool] = []

    def look(t: Tensor) -> Tensor:
        seen.append(is_plain(t))
        return t

    torch.vmap(look)(torch.zeros(2, 2))
    assert seen == [False]
