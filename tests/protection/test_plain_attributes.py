"""State that a model keeps as a plain attribute: told when it changes in training."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import fgadahat_hooks as fh
from fgadahat_hooks.errors import UnkeptStateWarning
from tests.support.small import learn

DATA = [(torch.randn(8, 4), torch.arange(8) % 3)] * 2


class Centred(nn.Module):
    """Subtracts a running mean, which is a plain attribute or a buffer."""

    def __init__(self, as_buffer: bool = False) -> None:
        super().__init__()
        self.body, self.head = nn.Linear(4, 8), nn.Linear(8, 3)
        if as_buffer:
            self.register_buffer("mean", torch.zeros(8))
        else:
            self.mean = torch.zeros(8)

    def forward(self, x: Tensor) -> Tensor:
        h = self.body(x)
        if self.training:
            self.mean = 0.5 * self.mean + 0.5 * h.detach().mean(0)
        out: Tensor = self.head((h - self.mean).relu())
        return out


class Caching(nn.Module):
    """Keeps what changes nothing: constants, the last batch's values, a weight that is computed."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.body, self.head = nn.Linear(4, 8), nn.utils.spectral_norm(nn.Linear(8, 8)), nn.Linear(8, 3)
        self.scale, self.penalty, self.last = torch.ones(8), torch.zeros(()), torch.zeros(0)

    def forward(self, x: Tensor) -> Tensor:
        h = self.body(self.stem(x)) * self.scale
        self.penalty, self.last = h.square().mean(), h.detach()
        out: Tensor = self.head(h.relu())
        return out


def learn_two(model: nn.Module) -> tuple[Any, Any]:
    """Return the first task's outputs when it has ended, and after the second."""
    session, found = fh.attach(model, {}, DATA[0][0]), []
    for task in ("a", "b"):
        learn(session, task, DATA)
        session.model.eval()
        with torch.no_grad(), session.use("a"):
            found.append(session.model(DATA[0][0]).clone())
        session.model.train()
    return found[0], found[1]


def test_it_is_told_once_and_a_buffer_is_kept() -> None:
    with pytest.warns(
        UnkeptStateWarning, match=r"'mean' is a tensor .*self\.register_buffer\('mean', \.\.\.\)"
    ) as told:
        learn_two(Centred())
    assert len([warning for warning in told if warning.category is UnkeptStateWarning]) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error", UnkeptStateWarning)
        before, after = learn_two(Centred(as_buffer=True))
    assert torch.equal(before, after)


def test_what_a_forward_leaves_behind_is_no_state() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", UnkeptStateWarning)
        learn_two(Caching())
