"""Replaying a part of a forward gives the same as a full forward; where it does not, full forwards are run."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from fgadahat_hooks.importance.attribution import AttributionBatch, AttributionMeasure
from fgadahat_hooks.importance.attribution.feature_ablation import FeatureAblationAbs
from fgadahat_hooks.importance.attribution.integrated_gradients import IntegratedGradientsAbs
from fgadahat_hooks.importance.attribution.replay import FullForward, LayerReruns, Replay, Rerun
from fgadahat_hooks.importance.attribution.replay_check import FullForwardLayers, layers_needing_full_forward
from tests.importance.replay_models import ODD_FUNCTIONS, Maps, Small, Twice, data, open_raw_batch, replayed_and_full

MEASURES: dict[str, Callable[[], AttributionMeasure]] = {
    "ablation": lambda: FeatureAblationAbs(attribute_to="layer"),
    "integral": lambda: IntegratedGradientsAbs(attribute_to="layer", n_steps=4),
}
MODELS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "small": (Small, (5,)),
    "twice": (Twice, (5,)),
    "maps": (Maps, (2, 6, 6)),
    **{name: (partial(Small, between), (5,)) for name, between in ODD_FUNCTIONS.items()},
}
REPLAYED = {
    "ablation": {"small", "twice", "maps", "dropout", "no_grad"},
    "integral": {"small", "twice", "maps", "dropout"},
}
"""Models all of whose layers are replayed; a function with its own gradient cannot be recorded."""


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("measure", sorted(MEASURES))
@pytest.mark.parametrize("name", sorted(MODELS))
def test_equal_to_full_forwards(name: str, measure: str, count: int, caplog: pytest.LogCaptureFixture) -> None:
    make, shape = MODELS[name]
    with caplog.at_level(logging.INFO), open_raw_batch(make().eval(), *data(count, *shape)) as batch:
        replayed, full = replayed_and_full(MEASURES[measure], batch)
    for layer, value in full.items():
        assert value.shape == (batch.sites[layer].units,)
        torch.testing.assert_close(replayed[layer], value, rtol=1e-12, atol=1e-15)
    assert any(bool(value.any()) for value in full.values())
    assert (caplog.text == "") == (name in REPLAYED[measure]), caplog.text


@pytest.mark.parametrize("measure", sorted(MEASURES))
@pytest.mark.parametrize("name", sorted(MODELS))
def test_which_layers_are_replayed(name: str, measure: str) -> None:
    make, shape = MODELS[name]
    with open_raw_batch(make(), *data(3, *shape)) as batch:
        reruns = LayerReruns(batch, grad=measure == "integral", full_forward=layers_needing_full_forward(batch))
        kinds = {layer: reruns.run(layer, type) for layer in batch.sites}
    assert (set(kinds.values()) == {Replay}) == (name in REPLAYED[measure]), kinds
    if name in ("numbers", "noise"):
        assert kinds == {"one": FullForward, "two": Replay}


def test_a_forward_through_numpy_is_not_recorded(caplog: pytest.LogCaptureFixture) -> None:
    """Tensors that are being recorded have no memory of their own: numpy would read arbitrary values."""
    with caplog.at_level(logging.INFO), open_raw_batch(Small(ODD_FUNCTIONS["numpy"]), *data()) as batch:
        full = FullForwardLayers()
        assert full.of(batch) == {"one", "two"}
        assert full.of(batch) is full.of(batch)
        LayerReruns(batch, grad=False, full_forward=full.of(batch))
    assert caplog.text.count("the model calls `numpy`") == 1


def test_layers_whose_replay_differs_get_full_forwards(monkeypatch: pytest.MonkeyPatch) -> None:
    scores = Replay.scores
    with open_raw_batch(Small(), *data()) as batch:
        assert layers_needing_full_forward(batch) == frozenset()
        monkeypatch.setattr(Replay, "scores", lambda *args: scores(*args) + 1)
        assert layers_needing_full_forward(batch) == {"one", "two"}


def test_a_score_that_depends_on_values_in_python() -> None:
    def score(output: Tensor, y: Tensor) -> Tensor:
        return output[:, 0] if float(output.detach().sum()) > 0 else output[:, 1]

    with open_raw_batch(Small(), *data(), score=score) as batch:
        reruns = LayerReruns(batch, grad=False)
        assert {reruns.run(layer, type) for layer in batch.sites} == {FullForward}


def test_the_reason_for_full_forwards_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO), open_raw_batch(Small(ODD_FUNCTIONS["noise"]), *data()) as batch:
        LayerReruns(batch, grad=False)
    assert "layer 'one'" in caplog.text
    assert "random" in caplog.text


def test_a_replay_that_fails_is_redone_with_full_forwards() -> None:
    def work(rerun: Rerun) -> str:
        if isinstance(rerun, Replay):
            raise RuntimeError("no batched form")
        return "full"

    with open_raw_batch(Small(), *data()) as batch:
        assert LayerReruns(batch, grad=False).run("one", work) == "full"


def test_a_layer_without_effect() -> None:
    model = Small(lambda h: torch.zeros_like(h))
    with open_raw_batch(model, *data()) as batch:
        for make in MEASURES.values():
            replayed, full = replayed_and_full(make, batch)
            assert not replayed["one"].any()
            assert not full["one"].any()


class Idle(Small):
    """Does not call its second layer."""

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(torch.relu(self.one(x)))
        return logits


@pytest.mark.parametrize("measure", sorted(MEASURES))
def test_a_layer_that_is_not_called(measure: str) -> None:
    with open_raw_batch(Idle(), *data()) as batch:
        found = MEASURES[measure]().compute(batch)
    assert torch.equal(found["two"].double(), torch.zeros(6, dtype=torch.float64))
    assert bool(found["one"].any())


def test_only_values_that_replays_need_are_kept() -> None:
    with open_raw_batch(Small(), *data()) as batch:
        reruns = LayerReruns(batch, grad=False)
        replay = reruns._replays["one"]
        every = set().union(*(r._segment.needed for r in reruns._replays.values()))
    assert set(replay._recorded.values) == every
    assert not any(value.requires_grad for value in replay._recorded.values.values())


class OverwritesConstant(Small):
    """Reads a constant and later overwrites it."""

    def forward(self, x: Tensor) -> Tensor:
        factor = self.two.bias.detach().clone()
        h = torch.relu(self.one(x)) * factor
        factor.zero_()
        logits: Tensor = self.head(self.two(h) + factor)
        return logits


def test_a_constant_that_is_overwritten_later() -> None:
    with open_raw_batch(OverwritesConstant(), *data()) as batch:
        replayed, full = replayed_and_full(MEASURES["ablation"], batch)
        assert bool(full["one"].any())
    for layer, value in full.items():
        torch.testing.assert_close(replayed[layer], value, rtol=1e-12, atol=1e-15)


def rows_at_once(batch: AttributionBatch, memory: int, grad: bool) -> int:
    return LayerReruns(batch, grad=grad).run("one", lambda rerun: rerun.rows_within(memory, grad=grad))


def test_bytes_of_a_copy() -> None:
    """After `one`: the copy itself, relu, linear, tanh, head, the label's logit; two of (3, 6) exist at a time."""
    with open_raw_batch(Small(), *data()) as batch:
        large = 3 * 6 * 8
        assert rows_at_once(batch, 2 * large * 10, grad=False) == 10
        assert rows_at_once(batch, 2 * large * 10 - 1, grad=False) == 9
        assert rows_at_once(batch, 1, grad=False) == 1
        assert rows_at_once(batch, 10 * 2 * large, grad=True) < 10
