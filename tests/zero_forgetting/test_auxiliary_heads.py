"""Heads used in training only: every task has its own, their inputs are gated, finished tasks keep their bits."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
import torchvision.models as published
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import SGD, AdamW, Optimizer

import fgadahat_hooks as fh
from fgadahat_hooks.errors import UnreachedLayerError
from tests.support.snapshot import differences, snapshot
from tests.support.zoo_models import CLASSES, images, labels, randomise


class Auxiliary(nn.Module):
    """Returns two logits in training, one of them from a branch that evaluation does not run."""

    def __init__(self, aux_classes: int = CLASSES) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 12, 3, stride=2), nn.BatchNorm2d(12)
        self.body = nn.Conv2d(12, 12, 3, stride=2)
        self.side, self.side_norm = nn.Linear(12, 10), nn.BatchNorm1d(10)
        self.dropout = nn.Dropout(0.5)
        self.side_scale = nn.Parameter(torch.rand(10) + 0.5)
        self.aux_head = nn.Linear(10, aux_classes)
        self.head = nn.Linear(12, CLASSES)

    def forward(self, x: Tensor) -> Any:
        h = F.relu(self.norm(self.stem(x)))
        logits = self.head(F.relu(self.body(h)).mean((2, 3)))
        if not self.training:
            return logits
        side = self.dropout(F.relu(self.side_norm(self.side(h.mean((2, 3)))))) * self.side_scale
        return logits, [self.aux_head(side)]


class Decoder(nn.Module):
    """Returns logits after each of its layers, by one head, as detection transformers do in training."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 12, 8, stride=8)
        self.layers = nn.ModuleList(nn.TransformerDecoderLayer(12, 2, 16, batch_first=True) for _ in range(3))
        self.queries = nn.Parameter(torch.randn(5, 12))
        self.norm, self.head = nn.LayerNorm(12), nn.Linear(12, CLASSES)
        self.hint = nn.Linear(12, CLASSES)

    def forward(self, x: Tensor) -> Any:
        memory = self.stem(x).flatten(2).mT
        h, seen = self.queries.expand(len(x), -1, -1), []
        for layer in self.layers:
            h = layer(h, memory)
            seen.append(self.head(self.norm(h)).mean(1))
        if not self.training:
            return {"logits": seen[-1]}
        return {"logits": seen[-1], "aux": [*seen[:-1], self.hint(memory.mean(1))]}


def outputs(model: nn.Module, x: Tensor) -> list[Tensor]:
    out = model(x)
    if isinstance(out, Tensor):
        return [out]
    parts = list(out.values()) if isinstance(out, dict) else list(out)
    return [t for part in parts for t in (part if isinstance(part, list) else [part])]


def learn(session: fh.Session, task: str, optimizer: Callable[..., Optimizer], classes: int | None, size: int) -> None:
    with session.task(task, num_classes=classes) as running:
        made = running.protect(optimizer(session.parameter_groups(lr=1e-2, weight_decay=0.1)))
        session.model.train()
        for seed in running.batches(range(2)):
            made.zero_grad()
            x = F.interpolate(images(4, seed=seed + ord(task)), size=size)
            losses = [F.cross_entropy(out, labels(4, classes or CLASSES)) for out in outputs(session.model, x)]
            assert len(losses) > 1
            (torch.stack(losses).sum() + running.regularization()).backward()
            made.step()


def task_logits(session: fh.Session, task: str, size: int) -> Tensor:
    session.model.eval()
    with torch.no_grad(), session.use(task):
        (out,) = outputs(session.model, F.interpolate(images(3, seed=99), size=size))
    return out.clone()


def two_tasks_and_proof(session: fh.Session, size: int = 32, classes: int | None = None) -> None:
    learn(session, "a", AdamW, None, size)
    before = task_logits(session, "a", size)
    learn(session, "b", AdamW, classes, size)
    learn(session, "c", partial(SGD, momentum=0.9), None, size)
    assert torch.equal(before, task_logits(session, "a", size))
    assert len(task_logits(session, "b", size)[0]) == (classes or CLASSES)


def prepared(model: nn.Module) -> nn.Module:
    randomise(model, images(8))
    return model


def test_everything_that_only_training_uses_is_found_and_protected() -> None:
    model = prepared(Auxiliary())
    before = snapshot(model)
    session = fh.attach(model, {}, images(1))  # one sample, which norms refuse in training
    session.detach()
    assert differences(before, snapshot(model)) == []
    session = fh.attach(model, {}, images(1))
    assert session.graph.heads == ("head", "aux_head")
    assert session.graph.auxiliary == ("aux_head",)
    assert list(session.graph.layers) == ["stem", "body", "side"]
    assert session.graph.layers["side"].position == "after_norm"
    assert session.graph.inputs["side"].resolved == 1.0  # fed by the stem alone
    assert session.graph.inputs["aux_head"].resolved == 1.0  # dropout and scale keep what is zero
    protections = {p.name: p.protection for p in session.plan.tensors}
    assert protections["aux_head.weight"] == protections["side_norm.running_var"] == "per_task"
    assert protections["side.weight"] == "gated"
    assert protections["side_scale"] == "frozen"
    two_tasks_and_proof(session, classes=7)
    session.verify(images(4), optimizer=partial(AdamW, weight_decay=0.1), steps=2)


def test_the_main_head_alone_reports_the_number_of_classes() -> None:
    session = fh.attach(prepared(Auxiliary(aux_classes=9)), {}, images(1))
    with (
        pytest.raises(fh.FgadahatError, match=r"they have \{'head': 4, 'aux_head': 9\}"),
        session.task("a", num_classes=7),
    ):
        pass


def test_named_heads_may_be_auxiliary() -> None:
    session = fh.attach(prepared(Auxiliary()), {"heads": {"names": ["head", "aux_head"]}}, images(1))
    assert session.graph.auxiliary == ("aux_head",)
    two_tasks_and_proof(session, classes=5)


def test_a_list_of_auxiliary_outputs() -> None:
    session = fh.attach(prepared(Decoder()), {}, images(2))
    assert session.graph.auxiliary == ("hint",)
    two_tasks_and_proof(session)
    session.verify(images(4), optimizer=AdamW, steps=2)


def test_a_layer_that_neither_mode_uses_is_named() -> None:
    model = Auxiliary()
    model.spare = nn.Linear(2, 2)
    with pytest.raises(UnreachedLayerError, match="'spare' on the example inputs, in evaluation or training mode"):
        fh.attach(model, {"gates": {"targets": ["body", "spare"]}}, images(1))
    session = fh.attach(model, {}, images(1))
    assert "Without a gate, not used by the example inputs: spare" in str(session.plan)
    assert "'spare' have no gate" in session.plan.advice[0]
    assert {p.name: p.protection for p in session.plan.tensors}["spare.weight"] == "frozen"


class NeedsTargets(Auxiliary):
    def forward(self, x: Tensor, targets: Tensor | None = None) -> Any:
        if self.training and targets is None:
            raise ValueError("targets are needed in training")
        return super().forward(x)


def test_a_forward_that_cannot_train_on_the_inputs_is_traced_in_evaluation_alone() -> None:
    assert set(fh.plan(NeedsTargets(), {}, images(1)).passed_over) == {"side", "aux_head"}
    session = fh.attach(NeedsTargets(), {}, {"x": images(1), "targets": labels(1)})
    assert session.graph.auxiliary == ("aux_head",)
    session = fh.attach(NeedsTargets(), {"gates": {"exclude": ["side", "aux_head"]}}, images(1))
    assert session.graph.auxiliary == ()


def test_googlenet() -> None:
    model = prepared(published.googlenet(num_classes=CLASSES, aux_logits=True, init_weights=False))
    session = fh.attach(model, {}, F.interpolate(images(1), size=64))
    assert session.graph.heads == ("fc", "aux1.fc2", "aux2.fc2")
    assert session.graph.auxiliary == ("aux1.fc2", "aux2.fc2")
    assert {"aux1.conv.conv", "aux1.fc1", "aux2.conv.conv", "aux2.fc1"} <= set(session.graph.layers)
    two_tasks_and_proof(session, size=64, classes=6)


@pytest.mark.zoo
def test_inception_v3() -> None:
    torch.manual_seed(0)
    model = published.inception_v3(num_classes=CLASSES, aux_logits=True, init_weights=False)
    session = fh.attach(model, {}, F.interpolate(images(1), size=299))
    assert session.graph.auxiliary == ("AuxLogits.fc",)
    assert "AuxLogits.conv1.conv" in session.graph.layers
    two_tasks_and_proof(session, size=299)
