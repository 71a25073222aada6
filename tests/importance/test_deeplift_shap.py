"""DeepLIFT SHAP: its baselines, its state, its memory."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fgadahat_hooks.importance.attribution.attribution_batch import AttributionBatch
from fgadahat_hooks.importance.attribution.deeplift_shap import DeepliftshapAbs
from tests.support.plain_attribution import (
    Between,
    assert_close_by_unit,
    layer_contributions,
    measure_layers,
    open_plain_batch,
    samples_and_baseline,
)


def test_shap_draws_its_baselines_from_the_batch() -> None:
    model, (x, _) = Between(F.gelu), samples_and_baseline(6)
    picks = torch.randperm(6, generator=torch.Generator().manual_seed(5))[:3]
    expected = torch.stack([layer_contributions(model, x, x[k]) for k in picks.tolist()]).mean(0).abs().mean(0)
    found = measure_layers("deepliftshap_abs", model, ["fc"], x, n_baselines=3, seed=5)["fc"]
    torch.testing.assert_close(found, expected)


def test_shap_uses_all_of_a_small_batch_and_zero_for_a_single_sample() -> None:
    model, (x, _) = Between(F.gelu), samples_and_baseline(3)
    assert_close_by_unit(
        measure_layers("deepliftshap_abs", model, ["fc"], x),
        measure_layers("deepliftshap_abs", model, ["fc"], x, baselines=x),
        1e-12,
    )
    one = measure_layers("deepliftshap_abs", model, ["fc"], x[:1])
    assert torch.equal(one["fc"], measure_layers("deeplift_abs", model, ["fc"], x[:1])["fc"])


def test_shap_resumes_its_generator() -> None:
    model, (x, _) = Between(F.gelu), samples_and_baseline(6)
    first, second = (DeepliftshapAbs(n_baselines=2, attribute_to="layer") for _ in range(2))
    with open_plain_batch(model, ["fc"], x) as opened:
        first.check(opened)
        before = first.state_dict()["generator"].clone()
        assert torch.equal(before, second.state_dict()["generator"])  # a check draws nothing
        first.compute(opened)
        second.load_state_dict(first.state_dict())
        assert torch.equal(first.compute(opened)["fc"], second.compute(opened)["fc"])


def test_shap_holds_one_baseline_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    run_on, alive, most = AttributionBatch.run_on, weakref.WeakSet[Tensor](), []

    def watched(self: AttributionBatch, *args: Any, **kwargs: Any) -> Any:
        gc.collect()
        most.append(len(alive))
        run = run_on(self, *args, **kwargs)
        alive.add(run.scores)
        return run

    monkeypatch.setattr(AttributionBatch, "run_on", watched)
    model, (x, _) = Between(F.gelu), samples_and_baseline(8)
    measure_layers("deepliftshap_abs", model, ["fc"], x, n_baselines=4)
    assert len(most) == 8
    assert max(most) <= 1


def test_shap_of_several_inputs() -> None:
    """All floating-point inputs are replaced by those of the same sample; integers stay."""

    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc, self.table = nn.Linear(5, 6), nn.Embedding(9, 6)
            self.head = nn.Linear(6, 3)

        def forward(self, x: Tensor, ids: Tensor, factor: Tensor) -> Tensor:
            logits: Tensor = self.head(F.relu(self.fc(x * factor) + self.table(ids)))
            return logits

    from fgadahat_hooks.importance.attribution import AttributionCall, open_attribution_batch
    from tests.support.plain_attribution import layer_site

    model, (x, _) = Two().double(), samples_and_baseline()
    call = ((x, torch.arange(4)), {"factor": torch.full((4, 1), 2.0)})
    with open_attribution_batch(
        model, {"fc": layer_site(model, "fc")}, AttributionCall(*call, lambda out: out[:, 0])
    ) as opened:
        found = DeepliftshapAbs(attribute_to="layer").compute(opened)["fc"]
    assert bool((found > 0).any())
