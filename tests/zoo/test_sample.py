"""The sweep in miniature: graph against random gates, static proof, two tasks under two optimizers."""

from __future__ import annotations

import pytest

from tests.zoo.sample import SAMPLE
from tests.zoo.sweep.examine import examine

OVER = {"odd PickedByData": 1, "odd SwappedKernel": 1}
"""Layers with inputs that the graph does not know exactly."""
CLOSABLE = {
    "narrow mobilenet_v3": 200,
    "narrow shufflenet_v2": 544,
    "narrow densenet": 32,
    "narrow convnext": 112,
    "narrow swin": 240,
    "narrow vit": 64,
    "transformers llama": 64,
    "transformers t5, words": 224,
    "transformers wav2vec2": 112,
    "odd StitchedMaps": 28,
    "odd PlainScores": 13,
    "odd UNet": 16,
    "odd ShuffledGroups": 48,
    "odd Frozen": 40,
    "odd BareParameters": 8,
    "odd TiedWords": 24,
    "odd Recurrent": 8,
    "odd Highway": 24,
    "odd Mixtures": 32,
    "odd RawAlsoRead": 8,
    "odd SliceOfWeight": 8,
    "odd BiasElsewhere": 16,
    "odd PickedByData": 16,
    "odd InPlaceIntoSlice": 16,
    "odd MovedChannels": 16,
    "odd Flattened": 72,
    "odd WeightStandardised": 8,
    "odd Checkpointed": 16,
    "odd Signal": 28,
    "odd SharedNorm": 0,
    "odd NormOverSteps": 16,
    "odd MixingSubclass": 16,
    "odd RunningSize": 16,
    "odd SwappedKernel": 0,
    "odd ForeignBias": 8,
    "odd AwayFromZero": 24,
}
"""Inputs that gates can make zero, at least."""


def complaints(name: str) -> list[str]:
    """Return all that is not as it should be with one model of the sample."""
    row = examine(SAMPLE[name], lambda _: None)
    found = row.errors + row.leaks
    if row.closable < CLOSABLE[name]:
        found.append(f"gates can make {row.closable} inputs zero, not {CLOSABLE[name]}")
    if (unknown := row.by_layer.over + row.by_layer.unresolved) != OVER.get(name, 0):
        found.append(f"{unknown} layers have inputs that the graph does not know exactly, not {OVER.get(name, 0)}")
    return found


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", SAMPLE)
def test_nothing_leaks_and_the_graph_is_true(name: str) -> None:
    assert complaints(name) == []
