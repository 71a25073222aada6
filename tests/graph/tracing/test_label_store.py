from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fgadahat_hooks.graph.tracing.label_store import LabelStore
from fgadahat_hooks.graph.tracing.labels import LIVE, ZERO, constant
from fgadahat_hooks.graph.tracing.storage import storage_key


def get(store: LabelStore, t: Tensor) -> Tensor:
    found = store.get(t)
    return constant(LIVE, t.shape) if found is None else found


@st.composite
def views(draw: st.DrawFn, t: Tensor) -> Tensor:
    """Draw a view of a tensor: slices, permutations, reshapes, expansions."""
    for _ in range(draw(st.integers(0, 3))):
        kind = draw(st.sampled_from(["slice", "permute", "flatten", "split", "expand", "select"]))
        if kind == "slice" and t.dim():
            d = draw(st.integers(0, t.dim() - 1))
            start = draw(st.integers(0, max(0, t.shape[d] - 1)))
            t = t[(slice(None),) * d + (slice(start, None, draw(st.integers(1, 2))),)]
        elif kind == "permute":
            t = t.permute(draw(st.permutations(range(t.dim()))))
        elif kind == "flatten" and t.is_contiguous():
            t = t.flatten()
        elif kind == "split" and t.dim() and t.shape[-1] % 2 == 0:
            t = t.unflatten(-1, (2, -1))
        elif kind == "expand":
            t = t.unsqueeze(0).expand(2, *t.shape)
        elif kind == "select" and t.dim() > 1:
            t = t.select(draw(st.integers(0, t.dim() - 1)), 0)
    return t


@st.composite
def dense_tensors(draw: st.DrawFn) -> Tensor:
    """Draw zeros of shape `(2, 4, 3, 2)` in some memory format."""
    order = draw(st.permutations(range(4)))
    shape = (2, 4, 3, 2)
    t = torch.zeros([shape[d] for d in order])
    return t.permute([order.index(d) for d in range(4)])


@settings(deadline=None, max_examples=150)
@given(data=st.data())
def test_every_view_sees_what_was_written_through_any_other(data: st.DataObject) -> None:
    t = data.draw(dense_tensors())
    store, truth = LabelStore(), torch.full_like(t, LIVE, dtype=torch.int32)
    channels = torch.arange(2, 6, dtype=torch.int32).view(1, 4, 1, 1)
    store.put(t, channels)
    truth.copy_(channels)
    part = data.draw(views(t))
    wide = any(s == 0 and n > 1 for s, n in zip(part.stride(), part.shape, strict=True))
    if part.numel() and data.draw(st.booleans()):
        mirror = truth.as_strided(part.shape, part.stride(), part.storage_offset())
        new = constant(7, part.shape) if data.draw(st.booleans()) else constant(LIVE)
        store.put(part, new)
        mirror.fill_(LIVE if wide else int(new.flatten()[0]))
    seen = data.draw(views(t))
    expected = truth.as_strided(seen.shape, seen.stride(), seen.storage_offset())
    assert torch.equal(get(store, seen), expected)


def test_labels_of_an_activation_cost_one_number_a_channel() -> None:
    store, t = LabelStore(), torch.zeros(2, 4, 8, 8)
    store.put(t, torch.arange(2, 6, dtype=torch.int32).view(1, 4, 1, 1))
    found = get(store, t.flatten(2).transpose(1, 2))
    assert found.stride() == (0, 0, 1)
    assert found[1, 3].tolist() == [2, 3, 4, 5]
    assert get(store, t.to(memory_format=torch.channels_last)).eq(LIVE).all()


def test_live_is_no_entry() -> None:
    store, t = LabelStore(), torch.zeros(4)
    store.put(t, LIVE)
    assert store.get(t) is None
    store.put(t, ZERO)
    assert store.has(t)
    store.put(t, constant(LIVE, (4,)))
    assert not store.has(t)


def test_reinterpreted_bytes_are_live() -> None:
    store, t = LabelStore(), torch.zeros(4)
    store.put(t, ZERO)
    for other in (t.view(torch.int32), t.view(torch.float16), torch.view_as_complex(t.view(2, 2))):
        assert store.get(other) is None
    store.put(t.view(torch.int32)[:2], 5)
    assert get(store, t).tolist() == [LIVE] * 4


def test_a_resized_storage_is_live() -> None:
    store, t = LabelStore(), torch.zeros(4)
    store.put(t, ZERO)
    t.resize_(8)
    assert store.get(t) is None
    store.put(t[:2], ZERO)
    assert get(store, t).tolist() == [ZERO] * 2 + [LIVE] * 6


def test_writing_into_overlapping_windows_is_live() -> None:
    store, t = LabelStore(), torch.zeros(6)
    store.put(t, ZERO)
    store.put(t.unfold(0, 2, 1)[:3], 5)
    assert get(store, t).tolist() == [LIVE] * 4 + [ZERO] * 2


@pytest.mark.parametrize("t", [torch.zeros(2, 2).to_sparse(), torch.zeros(0, 3)])
def test_what_has_no_strided_memory_is_ignored(t: Tensor) -> None:
    store = LabelStore()
    store.put(t, ZERO)
    assert store.get(t) is None


def test_new_storages_do_not_get_the_labels_of_freed_ones() -> None:
    store = LabelStore()
    for _ in range(600):
        t = torch.zeros(16)
        assert store.get(t) is None
        store.put(t, ZERO)
    assert len(store._entries) <= LabelStore._WRITES_PER_SWEEP + 1


def test_what_is_still_held() -> None:
    store, kept, bias = LabelStore(), torch.zeros(4), torch.zeros(2)
    store.put(kept, ZERO)
    store.put(torch.zeros(4), ZERO)
    store.put(bias, 3)
    store.mark_permanent(bias)
    assert store.held_storages() == [storage_key(kept)]
    store.forget(store.held_storages())
    assert store.get(kept) is None
    assert get(store, bias).tolist() == [3, 3]


def test_zeros_filled_unseen_are_live() -> None:
    store, honest, filled = LabelStore(), torch.zeros(4), torch.zeros(4)
    for t in (honest, filled):
        store.put_zeros(t)
    filled.numpy()[2] = 1.0
    for t in (honest, filled):
        store.check_zeros(t[:1])
    assert get(store, honest).tolist() == [ZERO] * 4
    assert get(store, filled).tolist() == [LIVE] * 4
    honest[0] = 1.0
    store.check_zeros(honest)
    assert store.has(honest)


def test_scalars() -> None:
    store, t = LabelStore(), torch.tensor(0.0)
    store.put(t, 4)
    assert int(get(store, t)) == 4
