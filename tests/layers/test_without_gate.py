"""Messages that no layer can be gated say which were passed over, and why."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, prune

import fgadahat_hooks as fh
from fgadahat_hooks.errors import NoMatchError
from fgadahat_hooks.layers.without_gate import without_gate


class Own(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.matrix = nn.Parameter(torch.ones(2, 2))


def test_reasons() -> None:
    pruned = nn.Linear(2, 2)
    prune.l1_unstructured(pruned, "weight", amount=1)
    modules = {
        "normed": parametrizations.weight_norm(nn.Linear(2, 2)), "pruned": pruned, "lazy": nn.LazyLinear(2),
        "table": nn.Embedding(2, 2, sparse=True), "lstm": nn.LSTM(2, 2), "own": Own(), "norm": nn.LayerNorm(2),
        "other": nn.Linear(2, 2),
    }  # fmt: skip
    said = [without_gate({name: module}, {"other"}) for name, module in modules.items()]
    assert said == [
        " Without a gate: 'normed' (its weight is computed of other parameters: normalised, pruned or parametrized).",
        " Without a gate: 'pruned' (its weight is computed of other parameters: normalised, pruned or parametrized).",
        " Without a gate: 'lazy' (it is lazy, and has no shape before the first batch).",
        " Without a gate: 'table' (with sparse=True: no measure reads sparse gradients).",
        " Without a gate: 'lstm' (recurrent: it has no gate, and is protected as the rest is).",
        " Without a gate: 'own' (the class Own is not known).",
        "",
        "",
    ]
    assert without_gate({str(n): Own() for n in range(6)}).endswith("and 2 more.")


def test_they_are_in_the_messages() -> None:
    with pytest.raises(NoMatchError, match=r"no layer that can be gated\. Without a gate: '0' \(recurrent"):
        fh.plan(nn.Sequential(nn.LSTM(4, 8)), {}, torch.randn(2, 4))
    model = nn.Sequential(parametrizations.weight_norm(nn.Linear(4, 8)), nn.ReLU(), nn.Linear(8, 3))
    with pytest.raises(NoMatchError, match=r"is a head \('2'\).*Without a gate: '0' \(its weight is computed"):
        fh.plan(model, {}, torch.randn(2, 4))
