"""One task id per sample: bit-equal to each task on the same batch, on networks of every kind, with norms and heads."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
import torchvision.models as published
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import AdamW

import fgadahat_hooks as fh
from tests.support.zoo_models import images, randomise

IDS = ["a", "c", "b", "b", "a", "c"]
CLASSES = {"a": 4, "b": 3, "c": 5}


@dataclass
class Case:
    """A model, the inputs of its forward, and where its logits are in what it returns."""

    make: Callable[[], nn.Module]
    inputs: Callable[[int, int], dict[str, Any]]
    logits: Callable[[Any], Tensor] = lambda out: out
    classes: bool = True


def pixels(count: int, seed: int) -> dict[str, Any]:
    return {"x": images(count, seed)}


def words(count: int, seed: int) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(0, 30, (count, 7), generator=generator)
    mask = (torch.arange(7) < torch.randint(3, 8, (count, 1), generator=generator)).long()
    return {"input_ids": ids, "attention_mask": mask}


def bert() -> nn.Module:
    transformers = pytest.importorskip("transformers")
    config = transformers.BertConfig(
        vocab_size=30,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=24,
        max_position_embeddings=8,
        num_labels=4,
    )
    made: nn.Module = transformers.BertForSequenceClassification(config)
    return made


def cnn() -> nn.Module:
    made: nn.Module = published.shufflenet_v2_x0_5(num_classes=4)
    randomise(made, images(16))
    return made


def vit() -> nn.Module:
    made: nn.Module = published.VisionTransformer(32, 8, 2, 2, 16, 24, num_classes=4)
    randomise(made, images(4))
    return made


def swin() -> nn.Module:
    made: nn.Module = published.SwinTransformer([4, 4], 12, [2, 2], [2, 2], [4, 4], num_classes=4)
    randomise(made, images(4))
    return made


CASES = {
    "cnn": Case(cnn, pixels),
    "vit": Case(vit, pixels),
    "swin": Case(swin, pixels),
    "bert": Case(bert, words, lambda out: out["logits"]),
}


def learnt(case: Case) -> fh.Session:
    torch.manual_seed(0)
    session = fh.attach(case.make(), {}, case.inputs(2, 0))
    for number, (task, classes) in enumerate(CLASSES.items()):
        with session.task(task, num_classes=classes) as running:
            optimizer = running.protect(AdamW(session.parameter_groups(lr=3e-3, weight_decay=0.1)))
            session.model.train()
            for step in running.batches(range(2)):
                optimizer.zero_grad()
                out = case.logits(session.model(**case.inputs(4, 10 * number + step)))
                (F.cross_entropy(out, torch.arange(4) % classes) + running.regularization()).backward()
                optimizer.step()
    session.model.eval()
    return session


@pytest.fixture(scope="module", params=CASES)
def world(request: pytest.FixtureRequest) -> tuple[fh.Session, Case]:
    case = CASES[request.param]
    return learnt(case), case


def run(session: fh.Session, case: Case, tasks: Any, inputs: dict[str, Any]) -> Any:
    with torch.no_grad(), session.use(tasks):
        return session.model(**inputs)


def test_each_row_is_that_of_its_task_on_the_same_batch(world: tuple[fh.Session, Case]) -> None:
    session, case = world
    inputs = case.inputs(len(IDS), 99)
    mixed = case.logits(run(session, case, IDS, inputs))
    assert mixed.shape == (len(IDS), max(CLASSES.values()))
    each = {task: case.logits(run(session, case, task, inputs)) for task in CLASSES}
    for row, task in enumerate(IDS):
        assert torch.equal(mixed[row, : CLASSES[task]], each[task][row])
        assert bool((mixed[row, CLASSES[task] :] == -torch.inf).all())
    assert not torch.equal(each["a"][:, :3], each["b"])


def test_the_output_keeps_its_class(world: tuple[fh.Session, Case]) -> None:
    session, case = world
    inputs = case.inputs(len(IDS), 99)
    assert type(run(session, case, IDS, inputs)) is type(run(session, case, "a", inputs))


def test_one_forward_for_each_distinct_task(world: tuple[fh.Session, Case]) -> None:
    session, case = world
    calls: list[int] = []
    first = next(m for m in session.model.modules() if isinstance(m, nn.Conv2d | nn.Embedding))
    handle = first.register_forward_hook(lambda *_: calls.append(1))
    counts = {}
    for name, tasks in {"same": ["b"] * 6, "two": ["a", "b"] * 3, "three": IDS}.items():
        calls.clear()
        run(session, case, tasks, case.inputs(6, 1))
        counts[name] = len(calls)
    handle.remove()
    assert counts == {"same": 1, "two": 2, "three": 3}


def test_tasks_have_norms_of_their_own(world: tuple[fh.Session, Case]) -> None:
    """Else rows could be right although all tasks shared one norm."""
    session, _ = world
    records = session._sequence.state.records
    norms = [p.name for p in session.plan.tensors if p.role == "norm" and p.kind == "parameter"]
    assert norms
    assert any(not torch.equal(records["a"].tensors[n], records["b"].tensors[n]) for n in norms)
