"""The sweep in miniature: graph against random gates, static proof, two tasks under two optimizers."""

from __future__ import annotations

import pytest

from tests.zoo.sample import SAMPLE
from tests.zoo.sweep.examine import examine

OVER = {"odd PickedByData": 1}
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
}
"""Inputs that gates can make zero, at least."""


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", SAMPLE)
def test_nothing_leaks_and_the_graph_is_true(name: str) -> None:
    row = examine(SAMPLE[name], lambda _: None)
    assert row.errors == []
    assert row.leaks == []
    assert row.closable >= CLOSABLE[name]
    assert row.by_layer.over + row.by_layer.unresolved == OVER.get(name, 0)
