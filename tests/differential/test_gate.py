"""The gate, the loss and all gradients of one recorded training step."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, linear, relu

from fgadahat_hooks import functional as F
from tests.reference import mask as reference
from tests.reference.recorded import LAYERS, SETS, Recorded, recorded


def scale_of(data: Recorded) -> Tensor:
    """Return the recorded gate scale of the step."""
    return torch.tensor(data.settings["anneal_scalar_upstream"], dtype=torch.float64)


def forward(data: Recorded, params: dict[str, Tensor]) -> tuple[list[Tensor], list[Tensor], Tensor]:
    """Run the recorded network; return masks, activations and logits."""
    h, masks, activations = data.tensor("t2_x"), [], []
    s_max, threshold = data.settings["s_max"], data.settings["clamp_threshold"]
    for i in LAYERS:
        masks.append(F.annealed_gate(params[f"e{i}"], scale_of(data), s_max, threshold))
        h = relu(linear(h, params[f"W{i}"], params[f"b{i}"]) * masks[i])
        activations.append(h)
    return masks, activations, linear(h, params["headW2"], params["headb2"])


@pytest.mark.parametrize("name", SETS)
def test_one_training_step_equals_record(name: str) -> None:
    """One backward gives the weight gradients and, through the gate itself, the compensated embedding gradients.

    The record computes the latter from `m (1 - m)`, whose rounding error the compensation amplifies where m is nearly
    1 (at s e = 40 it is 0), so units with s e < 8 are compared with the record, and all units with the loops.
    """
    data = recorded(name)
    keys = [*(f"{part}{i}" for part in "Wbe" for i in LAYERS), "headW2", "headb2"]
    params = {key: data.tensor(f"t2_before/{key}").requires_grad_() for key in keys}
    masks, activations, logits = forward(data, params)
    for mask in masks:
        mask.retain_grad()
    reg = data.settings["mask_sparsity_reg_factor"] * F.regularization(masks, data.layers("t1_end/cumulative_mask"))
    loss_cls = cross_entropy(logits, data.tensor("t2_y"))
    (loss_cls + reg).backward()

    for key, ours in {"logits": logits, "loss_cls": loss_cls, "reg": reg, "loss": loss_cls + reg}.items():
        same(ours, data.tensor(f"t2/{key}"))
    for i in LAYERS:
        same(masks[i], data.tensor(f"t2/mask{i}"))
        same(activations[i], data.tensor(f"t2/activation{i}"))
        same(params[f"W{i}"].grad, data.tensor(f"t2/gradW{i}_raw"))
        same(params[f"b{i}"].grad, data.tensor(f"t2/gradb{i}_raw"))
        check_embedding_gradient(data, i, params[f"e{i}"], masks[i])
    same(params["headW2"].grad, data.tensor("t2/head_gradW"))


def same(ours: Tensor | None, expected: Tensor) -> None:
    """Compare to 1e-11."""
    torch.testing.assert_close(ours, expected, rtol=1e-11, atol=1e-16)


def check_embedding_gradient(data: Recorded, i: int, embedding: Tensor, mask: Tensor) -> None:
    """Compare a layer's embedding gradient with the loops and, where it is exact, with the record."""
    assert embedding.grad is not None
    assert mask.grad is not None
    s, s_max = data.settings["anneal_scalar_upstream"], data.settings["s_max"]
    slopes = [reference.compensated_slope(e, s, s_max, data.settings["clamp_threshold"]) for e in embedding.tolist()]
    same(embedding.grad, mask.grad * torch.tensor(slopes, dtype=torch.float64))
    exact = s * embedding.detach() < 8
    assert exact.any()
    same(embedding.grad[exact], data.tensor(f"t2/grade{i}_compensated")[exact])


@pytest.mark.parametrize("name", SETS)
def test_literal_compensation_equals_record(name: str) -> None:
    data = recorded(name)
    for i in LAYERS:
        embedding, raw = data.tensor(f"t2_before/e{i}"), data.tensor(f"t2/grade{i}_raw")
        ours = F.compensate(raw, embedding, scale_of(data), data.settings["s_max"], data.settings["clamp_threshold"])
        torch.testing.assert_close(ours, data.tensor(f"t2/grade{i}_compensated"), rtol=1e-13, atol=0)


@pytest.mark.parametrize("s_max", [1.0, 50.0, 400.0])
@pytest.mark.parametrize("threshold", [1.0, 20.0, 50.0])
@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 1.0])
def test_gate_and_its_slope_equal_loops(s_max: float, threshold: float, share: float) -> None:
    """Within the range of double precision: the published form loses exp(-|s e|) below 1e-308."""
    scale = 1 / s_max + (s_max - 1 / s_max) * share
    limit = min(6.0, 700 / scale)
    embedding = torch.linspace(-limit, limit, 241, dtype=torch.float64).requires_grad_()
    gate = F.annealed_gate(embedding, torch.tensor(scale, dtype=torch.float64), s_max, threshold)
    gate.sum().backward()
    values = embedding.tolist()
    expected = torch.tensor([reference.sigmoid(scale * e) for e in values], dtype=torch.float64)
    slopes = [reference.compensated_slope(e, scale, s_max, threshold) for e in values]
    torch.testing.assert_close(gate.detach(), expected, rtol=1e-12, atol=0)
    torch.testing.assert_close(embedding.grad, torch.tensor(slopes, dtype=torch.float64), rtol=1e-12, atol=0)


@pytest.mark.parametrize("s", [0.0025, 1.0, 30.0, 400.0])
def test_slope_equals_the_literal_compensation(s: float) -> None:
    """`compensate` applied to the plain chain rule, written without the cancellation of `m (1 - m)`."""
    limit = min(6.0, 700 / s)
    embedding = torch.linspace(-limit, limit, 100, dtype=torch.float64)
    steep = s * embedding
    plain = s * torch.sigmoid(steep) * torch.sigmoid(-steep)
    expected = F.compensate(plain, embedding, s, 400.0, 50.0)
    leaf = embedding.clone().requires_grad_()
    F.annealed_gate(leaf, torch.tensor(s, dtype=torch.float64), 400.0, 50.0).sum().backward()
    torch.testing.assert_close(leaf.grad, expected, rtol=1e-12, atol=0)


@pytest.mark.parametrize("num_batches", [1, 2, 3, 10, 97])
@pytest.mark.parametrize("s_max", [0.5, 1.0, 50.0, 400.0])
def test_annealing_equals_loops(num_batches: int, s_max: float) -> None:
    for batch in range(1, num_batches + 1):
        expected = reference.anneal(batch, num_batches, s_max)
        assert F.anneal(batch, num_batches, s_max) == pytest.approx(expected, rel=1e-14)


@pytest.mark.parametrize("name", SETS)
def test_annealing_equals_the_recorded_scale(name: str) -> None:
    """The record counts batches from 0 in a formula that counts from 1: its batch 6 is our batch 6 of 10."""
    settings = recorded(name).settings
    ours = F.anneal(settings["t2_batch_idx"], settings["num_batches"], settings["s_max"])
    assert ours == pytest.approx(settings["anneal_scalar_upstream"], rel=1e-14)
    documented = F.anneal(settings["t2_batch_idx"] + 1, settings["num_batches"], settings["s_max"])
    assert documented == pytest.approx(settings["anneal_scalar_documented"], rel=1e-14)
