"""Resized heads, saved files and exports of every layer type."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import fgadahat_hooks as fh
from fgadahat_hooks.errors import BadCallError
from fgadahat_hooks.layers import layer_type_of
from tests.support.exporting import finish
from tests.support.layer_models import SMALL, SUBJECTS
from tests.support.learning import learn, logits, recipe


def attached(name: str) -> tuple[fh.Session, Tensor]:
    """Return a session on a subject, and inputs."""
    subject = SUBJECTS[name]
    x = subject.batch(5, seed=99)[0]
    return fh.attach(subject.model(), subject.spec, x[:1]), x


# ------------------------------------------------------------------ export
@pytest.mark.parametrize("name", SMALL)
def test_an_export_computes_the_same_bits(name: str) -> None:
    session, x = attached(name)
    finish(session, "birds", share=0.6)
    made = session.export("birds")
    with torch.no_grad():
        assert torch.equal(made(x), logits(session, "birds", x))
    assert {k: v.shape for k, v in made.state_dict().items()} == {
        k: v.shape for k, v in session.model.state_dict().items() if "hat_gate" not in k
    }


@pytest.mark.parametrize("name", SMALL)
def test_a_compact_export_is_smaller_and_computes_the_same(name: str) -> None:
    session, x = attached(name)
    finish(session, "birds", share=0.25)
    made, report = session.export("birds", compact=True, report=True)
    assert report.difference < 1e-9
    assert {n for n, layer in made.named_modules() if layer_type_of(layer)} >= set(report.removed)
    with torch.no_grad():
        torch.testing.assert_close(made(x), logits(session, "birds", x), rtol=1e-4, atol=1e-5)
    for layer in made.modules():
        _check_sizes(layer)


def two_layers(name: str) -> tuple[nn.Module, Tensor]:
    """Return a model of two layers of one type and a head, and inputs for it."""
    words = torch.randint(0, 9, (2, 5))
    if name == "Embedding":
        return nn.Sequential(nn.Embedding(9, 6), nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 3)), words
    if name == "Conv1D":
        conv1d = pytest.importorskip("transformers.pytorch_utils").Conv1D
        return nn.Sequential(conv1d(6, 4), nn.ReLU(), conv1d(6, 6), nn.ReLU(), nn.Linear(6, 3)), torch.randn(2, 4)
    kind, _, groups = name.partition(" ")
    layer, axes = getattr(nn, kind), int(kind[-2])
    chain = (layer(4, 6, 3), nn.ReLU(), layer(6, 6, 3, groups=int(groups or 1)), nn.ReLU(), layer(6, 3, 1))
    return nn.Sequential(*chain), torch.randn(2, 4, *[7] * axes)


KINDS = ("Conv1d", "Conv3d", "ConvTranspose1d", "ConvTranspose2d", "ConvTranspose3d")


@pytest.mark.parametrize("name", ["Embedding", "Conv1D", *KINDS, *(f"{k} {g}" for k in KINDS for g in (2, 6))])
def test_units_with_mask_0_are_pruned(name: str) -> None:
    """The first three units of both layers have mask 0: the first of two groups, or the first three of six."""
    model, x = two_layers(name)
    spec = {"gates": {"targets": ["all", *(["all-embedding"] if name == "Embedding" else [])]}}
    session = fh.attach(model, spec, x)
    with session.task("birds") as task:
        task.anneal(1, 1)
        with torch.no_grad():
            for embedding in session.embeddings.values():
                embedding.copy_(torch.tensor([-1.0, -1.0, -1.0, 1.0, 1.0, 1.0]))
    made, report = session.export("birds", compact=True, report=True)
    assert set(report.removed.values()) == {3}
    assert len(report.removed) == 2
    assert report.kept == {}
    with torch.no_grad():
        torch.testing.assert_close(made(x), logits(session, "birds", x), rtol=1e-4, atol=1e-5)
    for layer in made.modules():
        _check_sizes(layer)


def _check_sizes(layer: Any) -> None:
    if isinstance(layer, nn.Embedding):
        assert layer.weight.shape == (layer.num_embeddings, layer.embedding_dim)
    if isinstance(layer, nn.modules.conv._ConvNd):
        sizes = (layer.out_channels, layer.in_channels)
        first, second = sizes[::-1] if layer.transposed else sizes
        assert tuple(layer.weight.shape[:2]) == (first, second // layer.groups)


# ------------------------------------------------------------------ files
@pytest.mark.parametrize("name", SMALL)
def test_a_loaded_session_equals_the_saved_one(name: str, tmp_path: Path) -> None:
    session, x = attached(name)
    learn(session, "birds", [SUBJECTS[name].batch(seed=1)], recipe("adam"))
    session.save(tmp_path / "run")
    again = fh.load(SUBJECTS[name].model(), tmp_path / "run")
    assert torch.equal(logits(again, "birds", x), logits(session, "birds", x))
    for one in (session, again):
        torch.manual_seed(5)
        learn(one, "cars", [SUBJECTS[name].batch(seed=2)], recipe("adam"))
    assert torch.equal(logits(again, "cars", x), logits(session, "cars", x))


# ------------------------------------------------------------------ resized heads
class Headed(nn.Module):
    """A hidden layer and a head of any type, for 6 tokens of 4 features."""

    def __init__(self, head: nn.Module, *, tokens_last: bool) -> None:
        super().__init__()
        self.hidden, self.head, self.tokens_last = nn.Linear(4, 4), head, tokens_last

    def forward(self, x: Tensor) -> Tensor:
        h = F.relu(self.hidden(x))
        out: Tensor = self.head(h.transpose(1, 2)) if self.tokens_last else self.head(h)
        return out


def head(kind: str) -> Headed:
    if kind == "Conv1D":
        layer: nn.Module = pytest.importorskip("transformers.pytorch_utils").Conv1D(3, 4)
        return Headed(layer, tokens_last=False)
    return Headed(getattr(nn, kind)(4, 3, 1), tokens_last=True)


def outputs(session: fh.Session, task: str, x: Tensor) -> tuple[int, int]:
    """Return a task's number of outputs, and the head's size attribute while that task is in use."""
    module: Any = session.model.get_submodule("head")
    with session.use(task), torch.no_grad():
        out = session.model(x)
        size = module.nf if hasattr(module, "nf") else module.out_channels
        return out.shape[2 if type(module).__name__ == "Conv1D" else 1], size


@pytest.mark.parametrize("kind", ["Conv1D", "Conv1d", "ConvTranspose1d"])
def test_each_task_has_a_head_of_its_own_size(kind: str, tmp_path: Path) -> None:
    x, model = torch.randn(2, 6, 4), head(kind)
    session = fh.attach(model, {"adjustment": {"mode": "hat"}}, x)
    assert session.graph.heads == ("head",)
    for task, classes in (("birds", 3), ("cars", 5), ("boats", 2)):
        with session.task(task, num_classes=classes) as running:
            optimizer = torch.optim.Adam(session.parameter_groups(lr=0.01))
            running.protect(optimizer)
            for batch in running.batches([x, x]):
                (session.model(batch).square().mean() + running.regularization()).backward()
                optimizer.step()
    expected = {"birds": (3, 3), "cars": (5, 5), "boats": (2, 2)}
    assert {task: outputs(session, task, x) for task in expected} == expected
    session.save(tmp_path / "run")
    again = fh.load(head(kind), tmp_path / "run")
    assert {task: outputs(again, task, x) for task in expected} == expected
    state, fresh = session.model.state_dict(), fh.attach(head(kind), {"adjustment": {"mode": "hat"}}, x)
    fresh.model.load_state_dict(state)
    assert torch.equal(fresh.model.get_parameter("head.weight"), session.model.get_parameter("head.weight"))


def test_a_head_without_reset_parameters_is_initialised_for_each_task() -> None:
    x, model = torch.randn(2, 6, 4), head("Conv1D")
    session = fh.attach(model, {"adjustment": {"mode": "hat"}}, x)
    with session.task("birds") as task:
        task.anneal(1, 1)
    before = model.get_parameter("head.weight").detach().clone()
    with session.task("cars") as task:
        task.anneal(1, 1)
        assert not torch.equal(model.get_parameter("head.weight"), before)


def test_a_grouped_head_keeps_its_size() -> None:
    x, model = torch.randn(2, 6, 4), Headed(nn.Conv1d(4, 4, 1, groups=2), tokens_last=True)
    session = fh.attach(model, {"adjustment": {"mode": "hat"}}, x)
    with pytest.raises(BadCallError, match=r"not grouped, for num_classes=6, but its heads are: 'head' \(Conv1d\)"):
        session.task("birds", num_classes=6).__enter__()
