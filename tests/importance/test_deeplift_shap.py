"""DeepLIFT SHAP: its baselines, its state, its memory."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fgadahat_hooks.importance.attribution.deeplift_shap import DeepliftshapAbs
from fgadahat_hooks.importance.attribution.scene import Scene
from tests.support.explained import Between, inputs, measured, parts, same, scene


def test_shap_draws_its_baselines_from_the_batch() -> None:
    model, (x, _) = Between(F.gelu), inputs(6)
    picks = torch.randperm(6, generator=torch.Generator().manual_seed(5))[:3]
    expected = torch.stack([parts(model, x, x[k]) for k in picks.tolist()]).mean(0).abs().mean(0)
    found = measured("deepliftshap_abs", model, ["fc"], x, n_baselines=3, seed=5)["fc"]
    torch.testing.assert_close(found, expected)


def test_shap_takes_all_of_a_small_batch_and_zero_beside_a_single_sample() -> None:
    model, (x, _) = Between(F.gelu), inputs(3)
    same(
        measured("deepliftshap_abs", model, ["fc"], x),
        measured("deepliftshap_abs", model, ["fc"], x, baselines=x),
        1e-12,
    )
    one = measured("deepliftshap_abs", model, ["fc"], x[:1])
    assert torch.equal(one["fc"], measured("deeplift_abs", model, ["fc"], x[:1])["fc"])


def test_shap_goes_on_where_it_was_saved() -> None:
    model, (x, _) = Between(F.gelu), inputs(6)
    first, second = (DeepliftshapAbs(n_baselines=2, attribute_to="layer") for _ in range(2))
    with scene(model, ["fc"], x) as opened:
        first.check(opened)
        before = first.state_dict()["generator"].clone()
        assert torch.equal(before, second.state_dict()["generator"])  # a check draws nothing
        first.compute(opened)
        second.load_state_dict(first.state_dict())
        assert torch.equal(first.compute(opened)["fc"], second.compute(opened)["fc"])


def test_shap_holds_one_baseline_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    run_on, alive, most = Scene.run_on, weakref.WeakSet[Tensor](), []

    def watched(self: Scene, *args: Any, **kwargs: Any) -> Any:
        gc.collect()
        most.append(len(alive))
        run = run_on(self, *args, **kwargs)
        alive.add(run.scores)
        return run

    monkeypatch.setattr(Scene, "run_on", watched)
    model, (x, _) = Between(F.gelu), inputs(8)
    measured("deepliftshap_abs", model, ["fc"], x, n_baselines=4)
    assert len(most) == 8
    assert max(most) <= 1


def test_shap_of_several_inputs() -> None:
    """Numbers take another sample's place together; labels and sizes stay."""

    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc, self.table = nn.Linear(5, 6), nn.Embedding(9, 6)
            self.head = nn.Linear(6, 3)

        def forward(self, x: Tensor, ids: Tensor, factor: Tensor) -> Tensor:
            logits: Tensor = self.head(F.relu(self.fc(x * factor) + self.table(ids)))
            return logits

    from fgadahat_hooks.importance.attribution import Batch, open_scene
    from tests.support.explained import site

    model, (x, _) = Two().double(), inputs()
    call = ((x, torch.arange(4)), {"factor": torch.full((4, 1), 2.0)})
    with open_scene(model, {"fc": site(model, "fc")}, Batch(*call, lambda out: out[:, 0])) as opened:
        found = DeepliftshapAbs(attribute_to="layer").compute(opened)["fc"]
    assert bool((found > 0).any())
