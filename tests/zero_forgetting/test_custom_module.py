"""A module of the user's own, with a forward of its own and bare parameters: nothing has to be registered."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import SGD, AdamW

import fgadahat_hooks as fh
from tests.support.learning import RECIPES, learn, logits, recipe

SHAPE = (3, 6, 8)
CLASSES = 4


class Mixer(nn.Module):
    """Mixes tokens and channels by matrices of its own, scales, shifts, keeps a running mean, uses a child's weight."""

    centre: Tensor
    table: Tensor

    def __init__(self, tokens: int, channels: int) -> None:
        super().__init__()
        self.over_tokens = nn.Parameter(torch.randn(tokens, tokens) / tokens**0.5)
        self.over_channels = nn.Parameter(torch.randn(channels, channels) / channels**0.5)
        self.scale, self.shift = nn.Parameter(torch.rand(channels) + 0.5), nn.Parameter(torch.randn(channels))
        self.temperature = nn.Parameter(torch.tensor(1.3))
        self.lent = nn.Linear(channels, channels)
        self.register_buffer("centre", torch.zeros(channels))
        self.register_buffer("table", torch.arange(tokens), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            with torch.no_grad():
                self.centre.lerp_(x.mean((0, 1)), 0.3)
        h = (x - self.centre) @ self.over_channels * self.scale + self.shift
        h = torch.einsum("st,btc->bsc", torch.softmax(self.over_tokens / self.temperature, -1), h)
        return x + F.gelu(F.linear(h, self.lent.weight.tanh(), self.lent.bias))[:, self.table]


class Own(nn.Module):
    """The module between layers that get gates, with bare parameters at the root too."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(SHAPE[2], 16)
        self.mixers = nn.ModuleList(Mixer(SHAPE[1], 16) for _ in range(2))
        self.hidden, self.head = nn.Linear(16, 16), nn.Linear(16, CLASSES)
        self.prompt, self.gain = nn.Parameter(torch.randn(1, 1, 16)), nn.ParameterList([torch.rand(16) + 0.5])

    def forward(self, x: Tensor) -> Tensor:
        h = F.relu(self.embed(x)) + self.prompt
        for mixer in self.mixers:
            h = mixer(h)
        logits: Tensor = self.head(F.relu(self.hidden(h.mean(1))) * self.gain[0])
        return logits


def batch(seed: int) -> tuple[Tensor, Tensor]:
    return torch.randn(8, *SHAPE[1:], generator=torch.Generator().manual_seed(seed)), torch.arange(8) % CLASSES


BARE = [
    *(f"mixers.{i}.{n}" for i in range(2) for n in ("over_tokens", "over_channels", "scale", "shift", "temperature")),
    "prompt",
    "gain.0",
]


@pytest.mark.parametrize("rest", ["freeze", "per_task"])
def test_every_parameter_and_buffer_has_a_row(rest: str) -> None:
    model = Own()
    names = {*dict(model.named_parameters()), *dict(model.named_buffers())}
    for plan in (fh.plan(model, {"rest": rest}, batch(0)[0]), fh.attach(model, {"rest": rest}, batch(0)[0]).plan):
        rows = {row.name: row for row in plan.tensors}
        assert rows.keys() == names
        assert {rows[name].protection for name in BARE} == {"frozen" if rest == "freeze" else "per_task"}
        assert all(rows[name].reason == f"rest: {rest}" for name in BARE)
        assert rows["mixers.0.centre"].protection == "per_task"
        assert rows["mixers.0.lent.weight"].protection == "gated"
        assert plan.leaks == ()
        assert sum(row.numel for row in plan.tensors if row.kind == "parameter") == plan.parameters
        assert f"rest: {rest}" in str(plan)


@pytest.mark.parametrize("rest", ["freeze", "per_task"])
@pytest.mark.parametrize("optimizer", RECIPES)
def test_finished_tasks_keep_their_bits(rest: str, optimizer: str) -> None:
    session, how = fh.attach(Own(), {"rest": rest}, batch(0)[0]), recipe(optimizer)
    x = batch(99)[0]
    ended: dict[Any, Tensor] = {}
    for number, task in enumerate("abc"):
        before = {name: value.detach().clone() for name, value in session.model.named_parameters()}
        learn(session, task, [batch(10 * number + k) for k in range(3)], how)
        moved = {n for n, p in session.model.named_parameters() if not torch.equal(before[n], p)}
        assert {"head.weight", "embed.weight"} <= moved
        assert (set(BARE) & moved == set(BARE)) == (task == "a" or rest == "per_task")
        ended[task] = logits(session, task, x)
        assert all(torch.equal(before, logits(session, old, x)) for old, before in ended.items())


def test_both_forms_of_the_proof_hold() -> None:
    session = fh.attach(Own(), {}, batch(0)[0])
    for task in "ab":
        learn(session, task, [batch(ord(task))] * 2, recipe("adamw"))
    for make in (partial(AdamW, lr=0.01, weight_decay=0.1), partial(SGD, lr=0.05, momentum=0.9)):
        report = session.verify(optimizer=make, steps=3)
        assert (report.leaks, report.by_choice) == ({}, ())
