"""What a new head holds: drawn as its constructor does, or kept; never what was in the memory."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations, prune

import fgadahat_hooks as fh
from tests.support.learning import learn, recipe

CLASSES, INPUTS = 3, 64


class Cosine(nn.Linear):
    """A linear layer with a learnt temperature, which its own reset does not know."""

    def __init__(self) -> None:
        super().__init__(INPUTS, CLASSES)
        self.scale, self.log_scale = nn.Parameter(torch.tensor([4.0])), nn.Parameter(torch.tensor(0.5))

    def forward(self, h: Tensor) -> Tensor:
        return self.scale * self.log_scale.exp() * F.linear(h, F.normalize(self.weight, dim=1), self.bias)


def pruned() -> nn.Module:
    layer = nn.Linear(INPUTS, CLASSES)
    prune.l1_unstructured(layer, "weight", amount=0.3)
    return layer


HEADS: dict[str, Callable[[], nn.Module]] = {
    "plain": lambda: nn.Linear(INPUTS, CLASSES),
    "temperature": Cosine,
    "weight_norm": lambda: nn.utils.weight_norm(nn.Linear(INPUTS, CLASSES)),
    "spectral_norm": lambda: nn.utils.spectral_norm(nn.Linear(INPUTS, CLASSES)),
    "weight_norm, parametrized": lambda: parametrizations.weight_norm(nn.Linear(INPUTS, CLASSES)),
    "spectral_norm, parametrized": lambda: parametrizations.spectral_norm(nn.Linear(INPUTS, CLASSES)),
    "pruned": pruned,
    "conv": lambda: nn.Sequential(nn.Unflatten(1, (INPUTS, 1)), nn.Conv1d(INPUTS, CLASSES, 1), nn.Flatten()),
}


def session_of(kind: str) -> fh.Session:
    torch.manual_seed(0)
    with pytest.warns(FutureWarning) if kind == "weight_norm" else nullcontext():
        head = HEADS[kind]()
    model = nn.Sequential(nn.Linear(4, INPUTS), nn.ReLU(), head)
    return fh.attach(model, {"heads": {"names": ["2"]}, "gates": {"targets": ["0"]}}, torch.randn(2, 4))


def head_of(session: fh.Session) -> nn.Module:
    return session.model.get_submodule("2")


def learn_one(session: fh.Session, task: str) -> None:
    """Take two steps."""
    batches = [(torch.randn(8, 4), torch.randint(CLASSES, (8,))) for _ in range(2)]
    learn(session, task, batches, recipe("adamw"))


def fill_memory() -> None:
    """Leave large numbers in freed memory, so that memory which nobody sets shows."""
    held = [torch.full((n,), 1e30) for n in (1, CLASSES, INPUTS, CLASSES * INPUTS) for _ in range(20)]
    del held


@pytest.mark.parametrize("kind", HEADS)
def test_a_new_head_is_drawn_and_learns(kind: str) -> None:
    session = session_of(kind)
    first = {n: p.detach().clone() for n, p in head_of(session).named_parameters()}
    learn_one(session, "a")
    with session.use("a"):
        before = session.model(torch.ones(2, 4)).detach().clone()
    fill_memory()
    with session.task("b") as task:
        for name, parameter in head_of(session).named_parameters():
            assert parameter.isfinite().all(), name
            assert parameter.abs().max() <= max(2.0, 2 * float(first[name].abs().max())), name
            if "scale" in name:
                assert torch.equal(parameter, first[name]), name
        task.anneal(1, 1)
        out = session.model(torch.randn(8, 4)).detach()
        assert float(out.std(0).max()) > 0
    with session.use("a"):
        assert torch.equal(before, session.model(torch.ones(2, 4)))


def test_the_same_seed_draws_the_same_head() -> None:
    drawn = []
    for _ in range(2):
        session = session_of("weight_norm, parametrized")
        learn_one(session, "a")
        fill_memory()
        with session.task("b") as task:
            task.anneal(1, 1)
            drawn.append(session.model.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(drawn[0].values(), drawn[1].values(), strict=True))


# ------------------------------------------------------------------ parameters that give outputs
class Tied(nn.Module):
    """The table of words makes the scores of words too."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.body = nn.Embedding(CLASSES, 8), nn.Linear(8, 8)

    def forward(self, ids: Tensor) -> Tensor:
        return F.linear(self.body(self.words(ids)).tanh(), self.words.weight)


@pytest.mark.parametrize("rest", ["freeze", "per_task"])
def test_a_tied_table_is_each_tasks_own(rest: str) -> None:
    torch.manual_seed(0)
    ids, begin = torch.randint(CLASSES, (16,)), []
    session = fh.attach(Tied(), {"rest": rest}, ids)
    start = session.model.get_parameter("words.weight").detach().clone()
    for task in ("a", "b"):
        with session.task(task) as running:
            begin.append(session.model.get_parameter("words.weight").detach().clone())
            optimizer = running.protect(torch.optim.SGD(session.parameter_groups(lr=0.1)))
            for _ in running.batches(range(3)):
                optimizer.zero_grad()
                (
                    F.cross_entropy(session.model(ids), (ids + len(begin)) % CLASSES) + running.regularization()
                ).backward()
                optimizer.step()
        if task == "a":
            with session.use("a"):
                before = session.model(ids).detach().clone()
    assert all(torch.equal(start, values) for values in begin)
    with session.use("a"):
        own = session.model.get_parameter("words.weight").detach().clone()
        assert torch.equal(before, session.model(ids))
    with session.use("b"):
        assert not torch.equal(own, session.model.get_parameter("words.weight"))
