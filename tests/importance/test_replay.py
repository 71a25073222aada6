"""A part of a forward run again gives what the whole forward gives, or the whole forward is run."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from fgadahat_hooks.importance.attribution import AttributionMeasure, Scene
from fgadahat_hooks.importance.attribution.feature_ablation import FeatureAblationAbs
from fgadahat_hooks.importance.attribution.integrated_gradients import IntegratedGradientsAbs
from fgadahat_hooks.importance.attribution.replay import Replay, Rerun, Reruns, Whole
from fgadahat_hooks.importance.attribution.replay_check import WholeLayers, layers_to_run_whole
from tests.importance.replay_scenes import ODD, Maps, Small, Twice, both_ways, data, scene_of

MEASURES: dict[str, Callable[[], AttributionMeasure]] = {
    "ablation": lambda: FeatureAblationAbs(attribute_to="layer"),
    "integral": lambda: IntegratedGradientsAbs(attribute_to="layer", n_steps=4),
}
MODELS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "small": (Small, (5,)),
    "twice": (Twice, (5,)),
    "maps": (Maps, (2, 6, 6)),
    **{name: (partial(Small, between), (5,)) for name, between in ODD.items()},
}
REPLAYED = {
    "ablation": {"small", "twice", "maps", "dropout", "no_grad"},
    "integral": {"small", "twice", "maps", "dropout"},
}
"""Models all of whose layers run in parts; a function with a gradient of its own cannot be recorded."""


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("measure", sorted(MEASURES))
@pytest.mark.parametrize("name", sorted(MODELS))
def test_equal_to_whole_forwards(name: str, measure: str, count: int, caplog: pytest.LogCaptureFixture) -> None:
    make, shape = MODELS[name]
    with caplog.at_level(logging.INFO), scene_of(make().eval(), *data(count, *shape)) as scene:
        short, whole = both_ways(MEASURES[measure], scene)
    for layer, value in whole.items():
        assert value.shape == (scene.sites[layer].units,)
        torch.testing.assert_close(short[layer], value, rtol=1e-12, atol=1e-15)
    assert any(bool(value.any()) for value in whole.values())
    assert (caplog.text == "") == (name in REPLAYED[measure]), caplog.text


@pytest.mark.parametrize("measure", sorted(MEASURES))
@pytest.mark.parametrize("name", sorted(MODELS))
def test_which_run_in_parts(name: str, measure: str) -> None:
    make, shape = MODELS[name]
    with scene_of(make(), *data(3, *shape)) as scene:
        reruns = Reruns(scene, grad=measure == "integral", whole=layers_to_run_whole(scene))
        kinds = {layer: reruns.on(layer, type) for layer in scene.sites}
    assert (set(kinds.values()) == {Replay}) == (name in REPLAYED[measure]), kinds
    if name in ("numbers", "noise"):
        assert kinds == {"one": Whole, "two": Replay}


def test_a_forward_through_numpy_is_not_recorded(caplog: pytest.LogCaptureFixture) -> None:
    """Recorded tensors have no memory of their own: what numpy reads there is anything."""
    with caplog.at_level(logging.INFO), scene_of(Small(ODD["numpy"]), *data()) as scene:
        whole = WholeLayers()
        assert whole.of(scene) == {"one", "two"}
        assert whole.of(scene) is whole.of(scene)
        Reruns(scene, grad=False, whole=whole.of(scene))
    assert caplog.text.count("the model calls `numpy`") == 1


def test_reruns_that_give_something_else_are_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    scores = Replay.scores
    with scene_of(Small(), *data()) as scene:
        assert layers_to_run_whole(scene) == frozenset()
        monkeypatch.setattr(Replay, "scores", lambda *args: scores(*args) + 1)
        assert layers_to_run_whole(scene) == {"one", "two"}


def test_a_score_that_looks_at_numbers() -> None:
    def score(output: Tensor, y: Tensor) -> Tensor:
        return output[:, 0] if float(output.detach().sum()) > 0 else output[:, 1]

    with scene_of(Small(), *data(), score=score) as scene:
        reruns = Reruns(scene, grad=False)
        assert {reruns.on(layer, type) for layer in scene.sites} == {Whole}


def test_why_whole_forwards_are_run_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO), scene_of(Small(ODD["noise"]), *data()) as scene:
        Reruns(scene, grad=False)
    assert "layer 'one'" in caplog.text
    assert "random" in caplog.text


def test_a_rerun_that_fails_is_done_by_whole_forwards() -> None:
    def work(rerun: Rerun) -> str:
        if isinstance(rerun, Replay):
            raise RuntimeError("no batched form")
        return "whole"

    with scene_of(Small(), *data()) as scene:
        assert Reruns(scene, grad=False).on("one", work) == "whole"


def test_a_layer_without_effect() -> None:
    model = Small(lambda h: torch.zeros_like(h))
    with scene_of(model, *data()) as scene:
        for make in MEASURES.values():
            short, whole = both_ways(make, scene)
            assert not short["one"].any()
            assert not whole["one"].any()


class Idle(Small):
    """Does not call its second layer."""

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(torch.relu(self.one(x)))
        return logits


@pytest.mark.parametrize("measure", sorted(MEASURES))
def test_a_layer_that_is_not_called(measure: str) -> None:
    with scene_of(Idle(), *data()) as scene:
        found = MEASURES[measure]().compute(scene)
    assert torch.equal(found["two"].double(), torch.zeros(6, dtype=torch.float64))
    assert bool(found["one"].any())


def test_only_what_reruns_need_is_kept() -> None:
    with scene_of(Small(), *data()) as scene:
        reruns = Reruns(scene, grad=False)
        replay = reruns._replays["one"]
        every = set().union(*(r._part.needed for r in reruns._replays.values()))
    assert set(replay._tape.values) == every
    assert not any(value.requires_grad for value in replay._tape.values.values())


class OverwritesConstant(Small):
    """Reads a constant, and later writes into it."""

    def forward(self, x: Tensor) -> Tensor:
        factor = self.two.bias.detach().clone()
        h = torch.relu(self.one(x)) * factor
        factor.zero_()
        logits: Tensor = self.head(self.two(h) + factor)
        return logits


def test_a_constant_that_is_overwritten_later() -> None:
    with scene_of(OverwritesConstant(), *data()) as scene:
        short, whole = both_ways(MEASURES["ablation"], scene)
        assert bool(whole["one"].any())
    for layer, value in whole.items():
        torch.testing.assert_close(short[layer], value, rtol=1e-12, atol=1e-15)


def rows_at_once(scene: Scene, memory: int, grad: bool) -> int:
    return Reruns(scene, grad=grad).on("one", lambda rerun: rerun.at_once(memory, grad=grad))


def test_bytes_of_a_copy() -> None:
    """After `one`: the copy itself, relu, linear, tanh, head, the label's logit; two of (3, 6) are alive at a time."""
    with scene_of(Small(), *data()) as scene:
        large = 3 * 6 * 8
        assert rows_at_once(scene, 2 * large * 10, grad=False) == 10
        assert rows_at_once(scene, 2 * large * 10 - 1, grad=False) == 9
        assert rows_at_once(scene, 1, grad=False) == 1
        assert rows_at_once(scene, 10 * 2 * large, grad=True) < 10
