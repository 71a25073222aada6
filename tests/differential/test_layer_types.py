"""The unit graph of models of every layer type against what reaches each weight when random gates close."""

from __future__ import annotations

import pytest
import torch

import fgadahat_hooks as fh
from tests.differential import truth
from tests.differential.truth import Truth, free_noise_matters, measure, never_vanishing
from tests.support.layer_models import SUBJECTS


@pytest.fixture(autouse=True)
def _targets(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(truth, "SPEC", SUBJECTS[request.node.callspec.params["name"]].spec)


def observed(name: str) -> Truth:
    subject = SUBJECTS[name]
    x, _ = subject.batch(2)
    return measure(subject.model().eval(), lambda model: model(x))


@pytest.mark.parametrize("name", SUBJECTS)
def test_zero_means_zero_and_every_zero_is_known(name: str) -> None:
    found = observed(name)
    assert found.wrong == ()
    assert found.zero > 0
    with never_vanishing():
        found = observed(name)
    assert found.wrong == ()
    assert found.exact > 0.9999


@pytest.mark.parametrize("name", SUBJECTS)
def test_every_reader_is_in_the_graph(name: str) -> None:
    subject = SUBJECTS[name]
    x, _ = subject.batch(2)
    model = subject.model().eval()
    graph = fh.attach(model, subject.spec, x)._attached.graph
    tables = {n for n, inputs in graph.inputs.items() if not inputs.features}
    assert set(observed(name).layers) == set(graph.inputs) - tables
    assert {n for n in tables if not isinstance(model.get_submodule(n), torch.nn.Embedding)} == set()


@pytest.mark.parametrize("name", SUBJECTS)
def test_free_weights_do_not_matter(name: str) -> None:
    subject = SUBJECTS[name]
    x, _ = subject.batch(2)
    assert not free_noise_matters(subject.model().eval(), lambda model: model(x))
