"""Heads that are not one layer of their own: a whole block, or a weight that the body uses too."""

from __future__ import annotations

import torch
from torch import Tensor, nn

import fgadahat_hooks as fh
from tests.support.learning import learn, logits, recipe


class BlockHead(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(6, 24), nn.ReLU(), nn.Linear(24, 24), nn.ReLU())
        self.classifier = nn.Sequential(nn.Linear(24, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 4))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.classifier(self.body(x))
        return out


class TiedHead(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(4, 6)
        self.body = nn.Sequential(nn.Linear(6, 24), nn.ReLU(), nn.Linear(24, 6))
        self.head = nn.Linear(6, 4, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.body(self.embed(x.argmax(1) % 4) + x))
        return out


def learn_two(model: nn.Module, head: str) -> fh.Session:
    torch.manual_seed(0)
    x, y = torch.randn(16, 6), torch.arange(16) % 4
    session = fh.attach(model, {"heads": {"names": [head]}}, x)
    for policy in session.plan.tensors:
        inside = policy.owner == head or policy.owner.startswith(f"{head}.") or policy.owner == "embed"
        assert (policy.protection == "per_task") == inside, policy
    learn(session, "a", [(x, y)] * 4, recipe("adamw"))
    before = logits(session, "a", x)
    weight = session.model.get_submodule(head).state_dict()
    kept = {name: value.clone() for name, value in weight.items()}
    learn(session, "b", [(x, (y + 1) % 4)] * 4, recipe("adamw"))
    assert any(not torch.equal(kept[n], v) for n, v in session.model.get_submodule(head).state_dict().items())
    assert torch.equal(before, logits(session, "a", x))
    assert not session.verify().leaks
    return session


def test_everything_in_a_block_that_is_the_head_belongs_to_the_task() -> None:
    learn_two(BlockHead(), "classifier")


def test_a_weight_that_the_head_shares_with_the_body_belongs_to_the_task() -> None:
    learn_two(TiedHead(), "head")
