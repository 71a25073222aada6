from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch._dynamo.testing import CompileCounterWithBackend

from fgadahat_hooks.errors import BadCallError
from fgadahat_hooks.functional import anneal, annealed_gate, compensate, hard_mask, initial_embedding, soft_mask


def slope(embedding: Tensor, scale: float, s_max: float = 400.0, threshold: float = 50.0) -> Tensor:
    leaf = embedding.clone().requires_grad_()
    annealed_gate(leaf, torch.tensor(scale, dtype=leaf.dtype), s_max, threshold).sum().backward()
    assert leaf.grad is not None
    return leaf.grad


@pytest.mark.parametrize("power", [0.5, 2.0, 3.0])
@given(num_batches=st.integers(2, 200), s_max=st.floats(1, 1000))
def test_annealing_with_a_power_raises_the_progress_to_it(power: float, num_batches: int, s_max: float) -> None:
    for batch in (1, (num_batches + 1) // 2, num_batches):
        progress = ((batch - 1) / (num_batches - 1)) ** power
        found = anneal(batch, num_batches, s_max, power)
        assert found == pytest.approx(1 / s_max + (s_max - 1 / s_max) * progress, rel=1e-12)
    assert anneal(1, num_batches, s_max, power) == 1 / s_max
    assert anneal(num_batches, num_batches, s_max, power) == s_max
    assert anneal(1, 1, s_max, power) == s_max


@given(st.integers(2, 2000), st.floats(1, 1e4))
def test_annealing_starts_and_ends_exactly_and_rises(num_batches: int, s_max: float) -> None:
    scales = [anneal(b, num_batches, s_max) for b in (1, max(2, num_batches // 2), num_batches)]
    assert scales[0] == 1 / s_max
    assert scales[-1] == s_max
    assert scales == sorted(scales)
    assert min(scales) > 0


def test_one_batch_per_epoch_has_the_full_scale() -> None:
    assert anneal(1, 1, 400.0) == 400.0


@pytest.mark.parametrize(("batch", "num_batches"), [(0, 10), (11, 10), (1, 0), (-1, 3)])
def test_batch_outside_the_epoch_is_an_error(batch: int, num_batches: int) -> None:
    with pytest.raises(BadCallError, match=rf"within 1 and num_batches={num_batches}, but got {batch}"):
        anneal(batch, num_batches, 400.0)


def test_soft_mask_becomes_the_hard_mask() -> None:
    embedding = torch.tensor([-3.0, -1e-3, 0.0, 1e-3, 3.0])
    assert hard_mask(embedding).tolist() == [False, False, False, True, True]
    steep = soft_mask(embedding, 1e6)
    assert steep.tolist() == [0.0, 0.0, 0.5, 1.0, 1.0]


def test_hard_mask_is_detached() -> None:
    mask = hard_mask(torch.randn(3, requires_grad=True))
    assert mask.dtype is torch.bool
    assert not mask.requires_grad


def test_gate_equals_soft_mask_bit_for_bit() -> None:
    embedding, scale = torch.randn(50), torch.tensor(7.3)
    assert torch.equal(annealed_gate(embedding, scale, 400.0, 50.0), soft_mask(embedding, scale))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("scale", [0.0025, 1.0, 400.0])
def test_slope_is_finite_in_every_dtype_at_the_bounds(dtype: torch.dtype, scale: float) -> None:
    embedding = torch.tensor([-6.0, -0.2, 0.0, 0.2, 6.0], dtype=dtype)
    grad = slope(embedding, scale)
    assert grad.dtype is dtype
    assert grad.isfinite().all()
    assert (grad >= 0).all()


def test_slope_in_single_precision_equals_double() -> None:
    embedding = torch.linspace(-6, 6, 101)
    for scale in (0.0025, 3.0, 10.0, 400.0):
        exact = slope(embedding.double(), scale).float()
        torch.testing.assert_close(slope(embedding, scale), exact, rtol=3e-4, atol=1e-37)


@given(st.floats(-6, 6), st.floats(1e-3, 1e3))
def test_slope_is_even_and_within_the_threshold_independent_of_the_scale(e: float, scale: float) -> None:
    embedding = torch.tensor([e, -e], dtype=torch.float64)
    grad = slope(embedding, scale)
    assert grad[0].item() == pytest.approx(grad[1].item(), rel=1e-14, abs=0)
    if abs(scale * e) <= 50:
        expected = 400 * torch.sigmoid(embedding) * torch.sigmoid(-embedding)
        torch.testing.assert_close(grad, expected, rtol=1e-14, atol=0)


def test_two_backward_passes_add_up_and_loss_scaling_scales() -> None:
    embedding = torch.randn(5, dtype=torch.float64, requires_grad=True)
    scale = torch.tensor(3.0, dtype=torch.float64)
    for factor in (1.0, 4.0):
        (factor * annealed_gate(embedding, scale, 400.0, 50.0).sum()).backward()
    assert embedding.grad is not None
    torch.testing.assert_close(embedding.grad, 5 * slope(embedding.detach(), 3.0), rtol=1e-14, atol=0)


def test_gate_gives_no_gradient_to_the_scale() -> None:
    scale = torch.tensor(3.0, requires_grad=True)
    annealed_gate(torch.randn(5, requires_grad=True), scale, 400.0, 50.0).sum().backward()
    assert scale.grad is None


def test_gate_runs_under_vmap_and_functional_grad() -> None:
    embeddings, scale = torch.randn(3, 4, dtype=torch.float64), torch.tensor(2.0, dtype=torch.float64)

    def total(embedding: Tensor) -> Tensor:
        return annealed_gate(embedding, scale, 400.0, 50.0).sum()

    grads = torch.func.vmap(torch.func.grad(total))(embeddings)
    torch.testing.assert_close(grads, slope(embeddings, 2.0), rtol=1e-15, atol=0)


def test_gate_compiles_whole_and_is_not_compiled_again_for_another_scale() -> None:
    counter = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(annealed_gate, fullgraph=True, backend=counter)
    for value in (0.5, 1.0, 60.0):
        embedding = torch.linspace(-2, 2, 9, requires_grad=True)
        gate = compiled(embedding, torch.tensor(value), 400.0, 50.0)
        gate.sum().backward()
        assert torch.equal(gate, soft_mask(embedding, value))
        assert embedding.grad is not None
        torch.testing.assert_close(embedding.grad, slope(embedding.detach(), value))
    assert counter.frame_count == 1


def test_literal_compensation_at_the_largest_scale_is_one_for_small_embeddings() -> None:
    grad = torch.tensor([2.0, -1.0], dtype=torch.float64)
    assert torch.equal(compensate(grad, torch.zeros(2, dtype=torch.float64), 400.0, 400.0, 50.0), grad)


@pytest.mark.parametrize(
    ("mode", "low", "high"), [("U-11", -1, 1), ("U01", 0, 1), ("U-10", -1, 0), ("N01", -6, 6), ("last", -6, 6)]
)
def test_initial_embedding_is_drawn_from_its_range(mode: str, low: float, high: float) -> None:
    generator = torch.Generator().manual_seed(0)
    drawn = initial_embedding(4000, mode, generator=generator, dtype=torch.float64)
    assert drawn.shape == (4000,)
    assert drawn.dtype is torch.float64
    assert low <= drawn.min() < drawn.max() <= high
    middle = (low + high) / 2
    assert drawn.mean().item() == pytest.approx(middle, abs=0.05)
    again = initial_embedding(4000, mode, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert torch.equal(drawn, again)


def test_last_copies_the_embedding_before() -> None:
    previous = torch.randn(4, requires_grad=True)
    new = initial_embedding(4, "last", previous)
    assert torch.equal(new, previous)
    assert not new.requires_grad
    new.add_(1)
    assert not torch.equal(new, previous)


def test_previous_is_not_used_by_the_others() -> None:
    generator = torch.Generator().manual_seed(1)
    drawn = initial_embedding(4, "N01", torch.zeros(4), generator=generator)
    assert not torch.equal(drawn, torch.zeros(4))


def test_unknown_initialisation_is_an_error() -> None:
    with pytest.raises(BadCallError, match=r"'N01'.*'last'.*got 'N02'"):
        initial_embedding(4, "N02")
