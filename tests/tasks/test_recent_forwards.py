"""The last forwards of a task: what is kept of their arguments, and what a saved state holds."""

from __future__ import annotations

from collections import UserDict
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.nn import functional as F

import fgadahat_hooks as fh
from fgadahat_hooks.errors import LearningWarning

BATCHES = [(torch.randn(8, 6, generator=torch.Generator().manual_seed(seed)), torch.arange(8) % 2) for seed in range(4)]


class Pair(NamedTuple):
    """Two halves of the features."""

    left: Tensor
    right: Tensor


class Net(nn.Module):
    """Takes its tensor out of what it is called with."""

    def __init__(self, read: Callable[[Any], Tensor]) -> None:
        super().__init__()
        self.read = read
        self.body = nn.Sequential(nn.Linear(6, 12), nn.BatchNorm1d(12), nn.ReLU(), nn.Linear(12, 2))

    def forward(self, given: Any) -> Tensor:
        out: Tensor = self.body(self.read(given))
        return out


def train(session: fh.Session, task: fh.Task, make: Callable[[Tensor], Any]) -> None:
    optimizer = task.protect(torch.optim.AdamW(session.parameter_groups(lr=1e-2)))
    for x, y in task.batches(BATCHES):
        optimizer.zero_grad()
        F.cross_entropy(session.model(make(x)), y).backward()
        optimizer.step()


def interrupted(path: Path, make: Callable[[Tensor], Any], read: Callable[[Any], Tensor]) -> list[nn.Module]:
    """Return a model that ended its task, and one that ended it after a restart."""
    torch.manual_seed(0)
    model, other = Net(read), Net(read)
    session = fh.attach(model, {"gates": {"choose": "share", "tasks": 2}}, {"given": make(BATCHES[0][0])})
    with session.task("a") as task:
        train(session, task, make)
        session.save(path / "run")
    with fh.load(other, path / "run", {"given": make(BATCHES[0][0])}).task("a", resume=True):
        pass
    return [model, other]


FORMS: dict[str, tuple[Callable[[Tensor], Any], Callable[[Any], Tensor]]] = {
    "packed sequence": (lambda x: nn.utils.rnn.pack_sequence([x]), lambda given: given.data),
    "named tuple": (lambda x: Pair(x[:, :2], x[:, 2:]), lambda given: torch.cat([given.left, given.right], 1)),
    "arrays": (lambda x: {"x": x.numpy()}, lambda given: torch.as_tensor(given["x"])),
    "sparse": (lambda x: x.to_sparse(), lambda given: given.to_dense()),
    "emptied": (lambda x: {"x": [(x, None)]}, lambda given: given.pop("x").pop()[0]),
}


@pytest.mark.parametrize("form", FORMS)
def test_arguments_come_back_in_their_types_after_a_restart(form: str, tmp_path: Path) -> None:
    model, other = interrupted(tmp_path, *FORMS[form])
    assert all(torch.equal(a, b) for a, b in zip(model.buffers(), other.buffers(), strict=True))


def test_arguments_that_cannot_be_saved_are_named(tmp_path: Path) -> None:
    with pytest.warns(LearningWarning, match="could not hold its last batches, because of a UserDict among"):
        interrupted(tmp_path, lambda x: UserDict(x=x), lambda given: given.pop("x"))


def test_forwards_under_a_transform_do_not_count() -> None:
    torch.manual_seed(0)
    model = Net(lambda given: given)
    model.body[1] = nn.Identity()
    session = fh.attach(model, {}, BATCHES[0][0])
    with session.task("a") as task:
        train(session, task, lambda x: x)
        values = {name: p.detach() for name, p in model.named_parameters()}

        def loss(values: dict[str, Tensor], x: Tensor) -> Tensor:
            out: Tensor = functional_call(model, values, (x[None],)).sum()
            return out

        vmap(grad(loss), in_dims=(None, 0))(values, BATCHES[0][0])
        kept = task._recent.forwards
        assert [torch.equal(forward.args[0], x) for forward, (x, _) in zip(kept, BATCHES, strict=True)] == [True] * 4
