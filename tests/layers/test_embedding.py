from __future__ import annotations

import pytest
import torch
from torch import nn

import fgadahat_hooks as fh
from fgadahat_hooks.errors import UnsupportedLayerError
from fgadahat_hooks.layers import EmbeddingType, layer_type_of, refusal_of
from fgadahat_hooks.spec.matching import match

KIND, LAYER = EmbeddingType(), nn.Embedding(4, 3)


def test_units_are_features_and_there_are_no_inputs() -> None:
    assert (KIND.units(LAYER), KIND.inputs(LAYER)) == (3, 0)


def test_views_broadcast_over_the_weight() -> None:
    own = KIND.unit_view(LAYER, torch.tensor([1.0, 2.0, 3.0])).expand(4, 3)
    assert own.tolist() == [[1.0, 2.0, 3.0]] * 4
    nothing = KIND.input_view(LAYER, torch.zeros(0, dtype=torch.bool))
    assert nothing.expand(4, 3).any().item() is False


def test_sums() -> None:
    x = torch.arange(12.0).view(4, 3)
    assert KIND.sum_by_unit(LAYER, x).tolist() == [18.0, 22.0, 26.0]
    assert KIND.sum_by_input(LAYER, x).shape == (0,)


def test_the_gate_multiplies_the_features_of_tokens() -> None:
    output, mask = torch.ones(4, 5, 3), torch.tensor([0.0, 1.0, 1.0])
    assert (output * KIND.output_view(mask, output)).sum((0, 1)).tolist() == [0.0, 20.0, 20.0]


def test_sizes_are_updated() -> None:
    layer = nn.Embedding(4, 3)
    layer.weight = nn.Parameter(torch.ones(4, 2))
    KIND.update_sizes(layer)
    assert layer.embedding_dim == 2


@pytest.mark.parametrize(
    ("layer", "why"),
    [(nn.Embedding(4, 3, max_norm=1.0), "with max_norm"), (nn.Embedding(4, 3, sparse=True), "with sparse=True")],
    ids=["max_norm", "sparse"],
)
def test_a_table_that_cannot_be_protected_is_refused_with_the_reason(layer: nn.Embedding, why: str) -> None:
    model = nn.Sequential(layer, nn.Flatten(), nn.Linear(6, 3))
    assert layer_type_of(layer) is None
    assert refusal_of(layer).startswith(why)
    with pytest.raises(UnsupportedLayerError, match=f"'0' is a Embedding {why}"):
        fh.plan(model, {"gates": {"targets": "0"}}, torch.zeros(1, 2, dtype=torch.long))


def test_only_a_name_or_its_own_shorthand_selects_it() -> None:
    model = nn.Sequential(nn.Embedding(4, 3), nn.Linear(3, 3), nn.Conv1d(3, 3, 1))
    selected = {
        target: match(model, [target], [], lambda m: m is not model) for target in ("all", "all-embedding", "0")
    }
    assert selected == {"all": ["1", "2"], "all-embedding": ["0"], "0": ["0"]}
    assert match(model, ["*"], [], lambda m: m is not model) == ["0", "1", "2"]
